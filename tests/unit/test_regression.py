"""The statistics of a comparison: calm on unchanged programs, and sees what got slower."""

import math

import numpy as np
import pytest

from dashboards.comparing import moved
from streams import regression
from streams.regression import Side, adjusted, compare, incomplete_beta, student

FUNCTIONS = 331
NODES, MINUTES = 5, 12
PERIOD = 20_000_000


def side(cells, samples=None):
    """The sums of an array (clusters, functions) of samples."""
    cells = cells.astype(float) * PERIOD
    whole = cells.sum(axis=1)
    return Side(
        cells.sum(axis=0), (cells**2).sum(axis=0), (cells * whole[:, None]).sum(axis=0),
        whole.sum(), (whole**2).sum(), len(cells), whole.sum() / PERIOD if samples is None else samples,
    )  # fmt: skip


def shares_of():
    """Long-tailed shares as programs have them; function 0 holds 5 %."""
    rest = 1 / np.arange(1, FUNCTIONS) ** 1.1
    return np.concatenate([[0.05], 0.95 * rest / rest.sum()])


def mixes_of(random, shares, evenness, nodes=NODES):
    """Each node has a mix of its own."""
    return random.dirichlet(shares * evenness * 5, size=nodes)


def run(random, mixes, samples=20_000, evenness=300.0, minutes=MINUTES):
    """One side: each minute of a node differs from its mix, and loads differ. (clusters, functions), node by node."""
    load = random.gamma(4.0, size=len(mixes) * minutes)
    load = np.round(load * samples / load.sum()).astype(int)
    weights = random.standard_gamma(np.maximum(np.repeat(mixes, minutes, axis=0) * evenness, 1e-6))
    return random.multinomial(load, weights / weights.sum(axis=1, keepdims=True))


def halves(seed, evenness):
    """The first and the second half of the time of one unchanged program, on all nodes."""
    random = np.random.default_rng([7, seed])
    whole = run(random, mixes_of(random, shares_of(), evenness), 40_000, evenness, 2 * MINUTES)
    first = np.arange(len(whole)) % (2 * MINUTES) < MINUTES
    return whole[first], whole[~first]


def slowed(seed, evenness):
    """The same nodes before and after function 0 went from 5 % to 7 %."""
    random = np.random.default_rng([11, seed])
    before = mixes_of(random, shares_of(), evenness)
    after = before * 0.93 / 0.95
    after[:, 0] = before[:, 0] * 1.4
    return run(random, before, evenness=evenness), run(random, after / after.sum(axis=1)[:, None], evenness=evenness)


def findings(a, b, rate=0.05):
    return np.flatnonzero(adjusted(compare(side(a), side(b)).p) <= rate)


@pytest.mark.parametrize("evenness", [30.0, 300.0, 1e6])
def test_two_halves_of_an_unchanged_program_give_no_finding(evenness):
    quiet = sum(not len(findings(*halves(seed, evenness))) for seed in range(100))
    assert quiet >= 95


@pytest.mark.parametrize("evenness", [30.0, 1e6])
def test_hours_of_the_same_nodes_are_clusters_as_good(evenness):
    def by_hour(cells, hours):
        return cells.reshape(NODES, hours, -1).sum(axis=0)

    quiet, found = 0, 0
    for seed in range(100):
        random = np.random.default_rng([7, seed])
        whole = by_hour(run(random, mixes_of(random, shares_of(), evenness), 400_000, evenness, 48), 48)
        quiet += not len(findings(whole[:24], whole[24:]))
    for seed in range(10):
        random = np.random.default_rng([11, seed])
        before = mixes_of(random, shares_of(), 1000.0)
        after = before * 0.93 / 0.95
        after[:, 0] = before[:, 0] * 1.4
        sides = (
            run(random, mixes, minutes=24, evenness=1000.0) for mixes in (before, after / after.sum(axis=1)[:, None])
        )
        found += 0 in findings(*(by_hour(cells, 24) for cells in sides))
    assert quiet >= 95
    assert found == 10


def test_a_plain_multinomial_test_would_cry_wolf():
    """The same halves, their samples dealt to the clusters at random: what the overdispersion is for."""

    def dealt(cells, seed):
        return np.random.default_rng(seed).multinomial(cells.sum(axis=0), np.full(60, 1 / 60)).T

    loud = sum(bool(len(findings(*(dealt(half, seed) for half in halves(seed, 30.0))))) for seed in range(20))
    assert loud >= 15


@pytest.mark.parametrize("evenness", [1000.0, 1e6])
def test_five_to_seven_percent_is_found_with_20_000_samples_a_side(evenness):
    for seed in range(30):
        a, b = slowed(seed, evenness)
        found = compare(side(a), side(b))
        assert adjusted(found.p)[0] <= 0.05, seed
        assert found.low[0] < found.difference[0] < found.high[0]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = []
    for seed in range(150):
        found = compare(*(side(cells) for cells in slowed(seed, 1e6)))
        held.append(found.low[0] <= 0.02 <= found.high[0])
    assert 0.90 <= np.mean(held) <= 0.995


def test_new_and_removed_functions():
    a, b = np.full((20, 3), 100), np.full((20, 3), 100)
    a[:, 1], b[:, 2] = 0, 0
    found = compare(side(a), side(b))
    assert (found.baseline[1], found.comparison[2]) == (0, 0)
    assert found.p[1] < 1e-6
    assert found.p[2] < 1e-6
    assert found.difference[1] > 0 > found.difference[2]


def test_few_samples_tell_nothing():
    a, b = np.full((20, 2), 100), np.full((20, 2), 100)
    a[:, 1], b[:, 1] = 0, 0
    b[3, 1] = 4
    found = compare(side(a), side(b))
    assert not found.tested[1]
    assert found.p[1] == 1
    b[:17, 1] = 1
    assert 2 * 0.5**20 < compare(side(a), side(b)).p[1] < 1e-3


def test_sides_of_unequal_size_and_few_samples_are_not_overrated():
    """5 of 2,000 against 5 of 20,000: exactly 0.0019, where the normal approximation says 0.000007."""
    a = np.tile([1000, 0], (20, 1))
    a[:5, 1] = 1
    b = np.tile([100, 0], (20, 1))
    b[:5, 1] = 1
    exact = 2 * sum(math.comb(10, k) * (1 / 11) ** k * (10 / 11) ** (10 - k) for k in range(5, 11))
    assert compare(side(a), side(b)).p[1] == pytest.approx(exact, rel=0.1)


def test_what_is_not_sampled_is_told_by_its_spread_alone():
    random = np.random.default_rng(3)
    a, b = random.normal(1000, 30, (40, 7)), random.normal(1000, 30, (40, 7))
    assert not len(np.flatnonzero(adjusted(compare(side(a, 0), side(b, 0)).p) < 0.01))
    b[:, 0] *= 1.2
    assert adjusted(compare(side(a, 0), side(b, 0)).p)[0] < 1e-6
    assert not compare(side(a[:1], 0), side(b[:1], 0)).tested.any()


def test_nothing_on_a_side_is_no_error():
    nothing = np.zeros((0, 2))
    found = compare(side(nothing), side(np.full((5, 2), 10)))
    assert found.baseline.tolist() == [0, 0]
    assert np.isfinite(found.p).all()
    assert not compare(side(nothing), side(nothing)).tested.any()
    assert len(compare(side(np.zeros((3, 0))), side(np.zeros((3, 0)))).p) == 0


@pytest.mark.parametrize(
    ("a", "b", "x", "value"),
    [(1, 1, 0.3, 0.3), (2, 3, 0.4, 0.5248), (5, 0.5, 0.9, None), (0.5, 0.5, 0.25, 1 / 3), (3, 2, 0, 0), (3, 2, 1, 1)],
)
def test_the_incomplete_beta_function(a, b, x, value):
    found = incomplete_beta(np.array([a], float), np.array([b], float), np.array([x], float))[0]
    if value is None:  # by quadrature, after t = 1 - u^2 took the pole away
        u = np.linspace(math.sqrt(1 - x), 1, 200_001)
        f = 2 * (1 - u * u) ** (a - 1)
        whole = math.gamma(a) * math.gamma(b) / math.gamma(a + b)
        value = np.trapezoid(f, u) / whole
    assert found == pytest.approx(value, rel=1e-8, abs=1e-12)


def test_students_t_against_tables():
    # Abramowitz and Stegun, table 26.10: t for two-sided 5 %.
    for freedom, t in ((1, 12.706), (2, 4.303), (10, 2.228), (120, 1.980)):
        assert student(np.array([t]), freedom)[0] == pytest.approx(0.05, abs=2e-5)
    assert student(np.array([0.0, np.inf]), 9).tolist() == [1.0, 0.0]
    assert regression._student_quantile(0.95, 10) == pytest.approx(2.2281, abs=1e-3)


def test_benjamini_hochberg_by_hand():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.8])
    assert adjusted(p) == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.8])
    assert adjusted(np.array([])).tolist() == []


def test_how_much_of_a_load_lies_elsewhere():
    assert moved({"a": 30, "b": 10}, {"a": 3, "b": 1}) == 0
    assert moved({"a": 30, "b": 10}, {"a": 1, "b": 1}) == pytest.approx(0.25)
    assert moved({"a": 1}, {"b": 1}) == 1
    assert moved({"a": 90, "b": 10}, {"a": 100}) == pytest.approx(0.1)
    assert moved({}, {}) == moved({"a": 1}, {}) == 1
