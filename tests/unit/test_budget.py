"""The budget's arithmetic: who is relieved, when, and when it is taken back."""

from hypothesis import given
from hypothesis import strategies as st

from collectors.budget import CALM, LEAST, PATIENCE, Budget, Change, Lever

LEVERS = {
    "cpu": Lever(scales=True),
    "offcpu": Lever(scales=True, stops=True),
    "syscall": Lever(stops=True),
    "exec": Lever(),
}


def run(budget, used, costs, intervals):
    return [change for _ in range(intervals) if (change := budget.observe(used, costs))]


def test_one_dear_interval_changes_nothing():
    budget = Budget(0.02, LEVERS)
    assert run(budget, 0.05, {}, PATIENCE - 1) == []
    assert budget.observe(0.01, {}) is None
    assert run(budget, 0.05, {}, PATIENCE - 1) == []


def test_the_costliest_that_can_is_relieved_first():
    budget = Budget(0.02, LEVERS)
    costs = {"exec": 0.9, "offcpu": 0.03, "syscall": 0.01}
    assert run(budget, 0.05, costs, PATIENCE) == [Change("offcpu", 0.5)]
    assert run(budget, 0.05, costs | {"syscall": 0.04}, PATIENCE) == [Change("syscall", 0.0)]


def test_effort_halves_to_its_least_and_then_the_collector_is_given_up():
    budget = Budget(0.02, {"offcpu": LEVERS["offcpu"], "cpu": LEVERS["cpu"]})
    changes = run(budget, 1.0, {"offcpu": 1.0}, 100)
    efforts = [change.effort for change in changes if change.name == "offcpu"]
    assert efforts == [0.5, 0.25, 0.125, LEAST, 0.0]
    # The CPU profile gets coarser but never stops.
    assert min(change.effort for change in changes if change.name == "cpu") == LEAST
    assert run(budget, 1.0, {}, 100) == []


def test_reliefs_are_taken_back_last_first_and_more_slowly_each_time():
    budget = Budget(0.02, LEVERS)
    run(budget, 0.05, {"offcpu": 1}, PATIENCE)
    run(budget, 0.05, {"syscall": 1}, PATIENCE)
    assert run(budget, 0.001, {}, 2 * CALM) == [Change("syscall", 1.0), Change("offcpu", 1.0)]
    assert run(budget, 0.05, {"syscall": 1}, PATIENCE) == [Change("syscall", 0.0)]
    assert run(budget, 0.001, {}, 2 * CALM - 1) == []
    assert budget.observe(0.001, {}) == Change("syscall", 1.0)


def test_between_half_and_all_of_the_budget_nothing_moves():
    budget = Budget(0.02, LEVERS)
    run(budget, 0.05, {"offcpu": 1}, PATIENCE)
    assert run(budget, 0.015, {}, 500) == []
    assert budget.effort("offcpu") == 0.5


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
