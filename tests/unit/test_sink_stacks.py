"""Which stacks are written, and their columns."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sinks.stacks import KnownStacks, columns
from streams.schema import stacks
from streams.schema.stack_columns import StackColumns

FRAME = st.tuples(st.text(min_size=1, max_size=9), st.text(max_size=9), st.integers(0, 2**32 - 1))


@given(st.lists(st.lists(FRAME, min_size=1, max_size=5), min_size=1, max_size=5))
def test_columns_are_the_frames(stacked):
    texts = [stacks.join([stacks.frame_text(*frame) for frame in frames]) for frames in stacked]
    table = columns(pa.array(range(len(texts)), pa.uint64()), StackColumns.from_texts(texts), 5)
    for text, row in zip(texts, table.to_pylist(), strict=True):
        frames = stacks.split(text)
        assert (row["functions"], row["files"], row["lines"]) == tuple(map(list, zip(*frames, strict=True)))


def test_text_that_is_no_frame_becomes_a_name_and_spoils_no_other():
    texts = ["main\ta.c\t7\nodd", "", "a\tb\tx", "a\tb\t4294967296", "f\tg\t1\t2"]
    rows = columns(pa.array(range(5), pa.uint64()), StackColumns.from_texts(texts), 5).to_pylist()
    assert [row["functions"] for row in rows] == [
        ["main", "odd"], ["[unknown]"], ["a b x"], ["a b 4294967296"], ["f g 1 2"]
    ]  # fmt: skip
    assert rows[0]["lines"] == [7, 0]


def test_a_stack_is_known_until_the_day_ends_or_the_bound_is_reached_or_the_store_was_lost():
    clock = [86_400.0 * 20_000]
    known = KnownStacks(bound=3, now=lambda: clock[0])
    assert known.unknown([1, 2, 1]) == {1, 2}
    assert known.unknown([1]) == {1}  # not before it is written
    known.stored([1, 2])
    assert known.unknown([1, 2, 3]) == {3}
    known.forget()
    assert known.unknown([1]) == {1}
    known.stored([1])
    clock[0] += 86_400
    assert known.unknown([1]) == {1}
    known.stored([1, 2, 3, 4])
    assert known.unknown([4]) == {4}
