"""The budget's arithmetic: who is relieved, when, and when it is taken back."""

from hypothesis import given
from hypothesis import strategies as st

from collectors.budget import CALM, LEAST, LONG_PATIENCE, PATIENCE, Budget, Change, Lever

LEVERS = {
    "cpu": Lever(scales=True),
    "offcpu": Lever(scales=True, stops=True),
    "syscall": Lever(stops=True),
    "exec": Lever(),
}


def run(budget, used, costs, intervals):
    return [change for _ in range(intervals) for change in budget.observe(used, costs)]


def test_one_dear_interval_changes_nothing():
    budget = Budget(0.02, LEVERS)
    assert run(budget, 0.05, {}, PATIENCE - 1) == []
    assert budget.observe(0.01, {}) == []
    assert run(budget, 0.05, {}, PATIENCE - 1) == []


def test_the_costliest_that_can_is_relieved_first():
    budget = Budget(0.02, LEVERS)
    costs = {"exec": 0.9, "offcpu": 0.03, "syscall": 0.01}
    assert run(budget, 0.05, costs, PATIENCE) == [Change("offcpu", 0.5)]
    other = {"syscall": 0.04}
    assert run(budget, 0.01, other, 1) == []
    assert run(budget, 0.05, other, PATIENCE) == [Change("syscall", 0.0)]


def test_as_many_are_relieved_as_their_costs_say_and_the_next_interval_goes_on():
    levers = {name: Lever(scales=True) for name in ("a", "b", "c", "d")}
    budget = Budget(0.02, levers)
    costs = {"a": 0.02, "b": 0.016, "c": 0.012, "d": 0.0001}
    assert run(budget, 0.037, costs, PATIENCE) == [Change("a", 0.5), Change("b", 0.5)]
    # b has become no cheaper: others are relieved first.
    after = {"a": 0.01, "b": 0.016, "c": 0.012, "d": 0.0001}
    assert budget.observe(0.03, after) == [Change("c", 0.5), Change("a", 0.25)]
    after = {"a": 0.01, "b": 0.016, "c": 0.012, "d": 0.0001}
    assert budget.observe(0.03, after) == [Change("b", 0.25)]
    assert budget.observe(0.019, after) == []
    assert budget.observe(0.03, after) == []


def test_what_only_one_interval_cost_is_not_held_against_anybody():
    budget = Budget(0.02, {"cpu": Lever(scales=True), "syscall": Lever(scales=True)})
    budget.observe(0.025, {"cpu": 0.002, "syscall": 0.02})
    assert budget.observe(0.9, {"cpu": 0.8, "syscall": 0.021}) == [Change("syscall", 0.5)]


def test_effort_halves_to_its_least_and_then_the_collector_is_given_up():
    budget = Budget(0.02, {"offcpu": LEVERS["offcpu"], "cpu": LEVERS["cpu"]})
    costs = {"offcpu": 0.6, "cpu": 0.3}
    changes = run(budget, 1.0, costs, 100)
    efforts = [change.effort for change in changes if change.name == "offcpu"]
    assert efforts == [0.5, 0.25, 0.125, LEAST, 0.0]
    # The CPU profile gets coarser but never stops.
    assert min(change.effort for change in changes if change.name == "cpu") == LEAST
    assert run(budget, 1.0, costs, 100) == []


def test_nothing_is_given_up_for_a_tenth_of_the_budget():
    budget = Budget(0.02, {"syscall": Lever(stops=True)})
    assert run(budget, 0.0219, {"syscall": 0.015}, 100) == []
    assert run(budget, 0.0221, {"syscall": 0.015}, LONG_PATIENCE - 1) == []
    assert budget.observe(0.0221, {"syscall": 0.015}) == [Change("syscall", 0.0)]


def test_nothing_is_given_up_for_what_passes():
    budget = Budget(0.02, {"syscall": Lever(scales=True, stops=True)})
    costs = {"syscall": 0.006}
    run(budget, 0.03, costs, 100)
    assert budget.effort("syscall") == 0
    budget = Budget(0.02, {"syscall": Lever(scales=True, stops=True)})
    for _ in range(50):  # half a minute of three goes to something else
        assert 0.0 not in [change.effort for change in run(budget, 0.03, costs, 3) + run(budget, 0.0199, costs, 15)]
    assert budget.effort("syscall") == LEAST
    # Twice the limit is too much to wait for.
    assert run(budget, 0.041, costs, PATIENCE) == [Change("syscall", 0.0)]


def test_an_average_of_intervals_stays_below_the_limit():
    budget = Budget(0.02, {"offcpu": Lever(scales=True)})
    assert run(budget, 0.0189, {"offcpu": 0.01}, 100) == []
    assert run(budget, 0.0191, {"offcpu": 0.01}, PATIENCE) == [Change("offcpu", 0.5)]
    assert not budget.exceeded


def test_who_costs_next_to_nothing_is_left_alone():
    budget = Budget(0.02, LEVERS)
    assert run(budget, 1.0, {"cpu": 0.001, "offcpu": 0.0019, "exec": 0.9}, 100) == []


def test_reliefs_are_taken_back_one_by_one_and_more_slowly_each_time():
    budget = Budget(0.02, LEVERS)
    run(budget, 0.05, {"offcpu": 1}, PATIENCE)
    run(budget, 0.001, {}, 1)
    run(budget, 0.05, {"syscall": 1}, PATIENCE)
    assert run(budget, 0.001, {}, 2 * CALM) == [Change("offcpu", 1.0), Change("syscall", 1.0)]
    assert run(budget, 0.05, {"syscall": 1}, PATIENCE) == [Change("syscall", 0.0)]
    assert run(budget, 0.001, {}, 2 * CALM - 1) == []
    assert budget.observe(0.001, {}) == [Change("syscall", 1.0)]


def test_who_would_cost_least_does_more_again_whoever_was_relieved_last():
    budget = Budget(0.02, LEVERS)
    run(budget, 0.03, {"cpu": 0.004}, PATIENCE + 1)
    run(budget, 0.03, {"offcpu": 0.01}, PATIENCE + 1)
    assert (budget.effort("cpu"), budget.effort("offcpu")) == (0.25, 0.25)
    costs = {"cpu": 0.001, "offcpu": 0.006}  # all of offcpu's would be too much
    assert run(budget, 0.012, costs, CALM) == [Change("cpu", 0.5)]
    assert run(budget, 0.012, costs, CALM) == [Change("cpu", 1.0)]
    assert run(budget, 0.012, costs, 500) == []
    assert run(budget, 0.009, costs, CALM) == [Change("offcpu", 0.5)]


def test_a_relief_is_taken_back_where_there_is_room_for_it():
    budget = Budget(0.02, LEVERS)
    run(budget, 0.05, {"offcpu": 0.03}, PATIENCE)
    assert budget.effort("offcpu") == 0.5
    # All of it would cost 0.004 more: 0.016.
    assert run(budget, 0.012, {"offcpu": 0.004}, 500) == []
    assert run(budget, 0.010, {"offcpu": 0.004}, CALM) == [Change("offcpu", 1.0)]


def test_one_that_was_given_up_comes_back_below_half_of_the_budget():
    budget = Budget(0.02, LEVERS)
    run(budget, 0.05, {"syscall": 0.04}, PATIENCE)
    assert run(budget, 0.012, {}, 500) == []
    assert run(budget, 0.009, {}, CALM) == [Change("syscall", 1.0)]


def test_one_that_was_given_up_comes_back_where_there_is_room_for_what_it_cost():
    budget = Budget(0.02, {"syscall": Lever(stops=True)})
    run(budget, 0.03, {"syscall": 0.004}, LONG_PATIENCE)
    assert budget.effort("syscall") == 0
    assert run(budget, 0.0111, {}, 500) == []
    assert run(budget, 0.0109, {}, CALM) == [Change("syscall", 1.0)]


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([*LEVERS])), max_size=300))
def test_effort_always_comes_back_to_all_of_it(history):
    budget = Budget(0.02, LEVERS)
    for used, costly in history:
        budget.observe(used, {costly: used})
        assert all(budget.effort(name) == 0 or LEAST <= budget.effort(name) <= 1 for name in LEVERS)
        assert budget.effort("exec") == 1
        assert budget.effort("cpu") > 0
    for _ in range(40_000):
        budget.observe(0.0, {})
        if all(budget.effort(name) == 1 for name in LEVERS):
            return
    raise AssertionError("still held back")


def test_it_is_told_at_once_when_exceeded_by_far_and_otherwise_when_it_lasts():
    budget = Budget(0.02, LEVERS)
    budget.observe(0.03, {})
    assert not budget.exceeded
    budget.observe(0.03, {})
    assert budget.exceeded
    budget.observe(0.02, {})
    assert not budget.exceeded
    budget.observe(0.05, {})
    assert budget.exceeded
