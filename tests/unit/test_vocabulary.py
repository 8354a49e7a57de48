"""Numbers stand for the same groups, functions and stacks for ever; memory has a bound."""

import numpy as np

from streams.schema import stack_columns, stacks
from streams.schema.messages import OTHER
from streams.vocabulary import OTHER_ID, Vocabulary, gather


def dictionary(*stacked):
    texts = [stacks.join([stacks.frame_text(f, "x.c", 3) for f in functions]) for functions in stacked]
    return stack_columns.entries(texts)


def named(words, slots):
    groups, functions = words.slot_group.view[slots], words.slot_function.view[slots]
    return [(words.groups[g][0], words.functions[f]) for g, f in zip(groups, functions, strict=True)]


def test_a_pair_expands_to_each_function_once_and_its_leaf():
    words = Vocabulary()
    group = words.group(("g",))
    numbers = words.stacks(dictionary("abca", "d"))
    slots, lengths, leaves = words.expand(words.pairs(np.full(2, group), numbers))
    assert lengths.tolist() == [3, 1]
    assert sorted(named(words, slots[:3])) == [("g", "a"), ("g", "b"), ("g", "c")]
    assert named(words, slots[3:]) == [("g", "d")]
    assert named(words, leaves) == [("g", "a"), ("g", "d")]


def test_numbers_stay_when_the_same_comes_again():
    words = Vocabulary()
    first = words.stacks(dictionary("ab", "cd", "ab"))
    assert first[0] == first[2] != first[1]
    again = words.stacks(dictionary("xy", "cd", "ab"))
    assert (again[1], again[2]) == (first[1], first[0])
    groups = np.array([words.group(("g",)), words.group(("h",)), words.group(("g",))])
    assert groups.tolist() == [0, 1, 0]
    pairs = words.pairs(groups, first)
    assert words.pairs(groups, first).tolist() == [pairs[2], pairs[1], pairs[2]]


def test_a_new_pair_that_stands_twice_shifts_no_later_one():
    words = Vocabulary()
    number, other = words.stacks(dictionary("ab", "cd"))
    group = words.group(("g",))
    words.pairs(np.array([group, group]), np.array([number, number]))
    slots, _, leaves = words.expand(words.pairs(np.array([group]), np.array([other])))
    assert sorted(named(words, slots)) == [("g", "c"), ("g", "d")]
    assert named(words, leaves) == [("g", "d")]


def test_the_remainder_is_function_zero_of_each_group():
    words = Vocabulary()
    slots = [words.other_slot(words.group((name,))) for name in "gh"]
    assert named(words, np.array(slots)) == [("g", OTHER), ("h", OTHER)]
    assert words.function(OTHER) == OTHER_ID


def test_it_is_full_at_its_bounds():
    words = Vocabulary(max_slots=3, max_frames=1000)
    words.pairs(np.array([words.group(("g",))]), words.stacks(dictionary("abc")))
    assert not words.full
    words.pairs(np.array([0]), words.stacks(dictionary("d")))
    assert words.full
    words = Vocabulary(max_slots=1000, max_frames=5)
    words.pairs(np.array([words.group(("g",))]), words.stacks(dictionary("abc")))
    assert words.full


def test_gather_concatenates_any_lists():
    values, start = np.array([7, 8, 9, 5], np.int32), np.array([0, 2, 2, 4])
    found, lengths = gather(values, start, np.array([2, 0, 1, 2]))
    assert (found.tolist(), lengths.tolist()) == ([9, 5, 7, 8, 9, 5], [2, 2, 0, 2])
    assert gather(values, start, np.array([], np.int64))[0].tolist() == []
