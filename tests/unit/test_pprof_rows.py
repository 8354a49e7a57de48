"""Rows, times and growth: pure functions over decoded profiles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.scrapers import pprof, rows
from collectors.scrapers.growth import Growth
from collectors.scrapers.jobs import Job
from collectors.scrapers.settings import ScrapeTarget
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from streams.schema.stack_columns import StackColumns

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
CORPUS = Path(__file__).parents[1] / "corpus/pprof"
TARGET = ScrapeTarget("http://127.0.0.1:6060", service="shop", version="v1", namespace="n", pod="p", container="c")


def corpus(name):
    return pprof.decode((CORPUS / f"{name}.pb.gz").read_bytes())


@pytest.mark.parametrize(
    ("name", "published", "periods"),
    [
        ("profile", {"cpu": "process_cpu"}, (10_000_000,)),
        ("heap", {"inuse_objects": "inuse_objects", "inuse_space": "inuse_space"}, (0, 16384)),
        ("allocs", {"alloc_objects": "alloc_objects", "alloc_space": "alloc_space"}, (0, 16384)),
        ("goroutine", {"goroutine": "goroutine"}, (0,)),
        ("threadcreate", {"threadcreate": "threadcreate"}, (0,)),
        ("mutex", {"contentions": "mutex_contentions", "delay": "mutex_delay"}, (0, 0)),
        ("block", {"contentions": "block_contentions", "delay": "block_delay"}, (0, 0)),
    ],
)
def test_every_profile_becomes_rows_of_its_types_with_exact_sums(name, published, periods):
    profile = corpus(name)
    columns = rows.select(name, profile)
    batch, events = rows.build(TARGET, columns, NOW)
    batch.validate(full=True)
    found = batch.to_pylist()
    assert len(found) > 0
    assert columns.periods == periods
    for go, ours in published.items():
        at = profile.types.index(go)
        mine = [row for row in found if row["type"] == ours]
        expected = {t: v for t, v in zip(profile.texts, profile.values[:, at].tolist(), strict=True) if v}
        assert {stacks.join(row["stack"]["frames"]): row["value"] for row in mine} == expected
        assert {row["unit"] for row in mine} == {profile.units[at]}
        assert {row["period"] for row in mine} == {periods[columns.types.index(ours)]}
    assert {row["type"] for row in found} == set(published.values())
    assert all(row["stack"]["id"] == stacks.stack_id(stacks.join(row["stack"]["frames"])) for row in found)
    identity = {(r["time_ns"], r["namespace"], r["pod"], r["container"], r["service"], r["version"]) for r in found}
    assert identity == {(NOW, "n", "p", "c", "shop", "v1")}
    first = {"profile": "samples", "mutex": "contentions", "block": "contentions"}.get(name, next(iter(published)))
    assert events == int(profile.values[:, profile.types.index(first)].sum())


def test_a_profile_without_the_wanted_types_is_refused():
    with pytest.raises(CorruptRecordError, match="no type 'cpu', only alloc_objects"):
        rows.select("profile", corpus("heap"))
    strange = replace(corpus("profile"), units=("count", "furlongs"))
    with pytest.raises(CorruptRecordError, match="counts in 'furlongs'"):
        rows.select("profile", strange)


def test_no_rows_when_all_is_zero():
    columns = rows.select("block", corpus("block"))
    batch, events = rows.build(TARGET, replace(columns, values=columns.values * 0, events=columns.events * 0), NOW)
    assert (batch.num_rows, events) == (0, 0)


@pytest.mark.parametrize(
    ("name", "time_ns", "duration_ns", "expected"),
    [
        # The profile's own times, also a little before and after the request.
        ("profile", NOW + SECOND, 5 * SECOND, (NOW + SECOND, NOW + 6 * SECOND, False)),
        ("profile", NOW - SECOND, 5 * SECOND, (NOW - SECOND, NOW + 4 * SECOND, False)),
        ("heap", NOW + 7, 0, (NOW + 7, NOW + 8, False)),
        # A clock one day ahead, behind, or none.
        ("profile", NOW + 86_400 * SECOND, 5 * SECOND, (NOW, NOW + 5 * SECOND, True)),
        ("profile", 0, 5 * SECOND, (NOW, NOW + 5 * SECOND, True)),
        ("heap", NOW - 86_400 * SECOND, 0, (NOW + 10 * SECOND, NOW + 10 * SECOND + 1, True)),
        # A duration that cannot be.
        ("profile", NOW, 3600 * SECOND, (NOW, NOW + 10 * SECOND, False)),
        ("profile", NOW, -5, (NOW, NOW + 10 * SECOND, False)),
        ("profile", NOW, 0, (NOW, NOW + 10 * SECOND, False)),
        ("profile", NOW + 12 * SECOND, 0, (NOW + 12 * SECOND, NOW + 12 * SECOND + 1, False)),
    ],
)
def test_times_are_the_profiles_own_unless_its_clock_is_wrong(name, time_ns, duration_ns, expected):
    profile = replace(corpus(name), time_ns=time_ns, duration_ns=duration_ns)
    assert rows.span(name, profile, NOW, NOW + 10 * SECOND) == expected


def columns_of(counts):
    """Columns of one cumulative profile from {stack number: (contentions, delay)}."""
    values = np.array(list(counts.values()), np.int64).reshape(len(counts), 2)
    texts = [f"f{number}" for number in counts]
    ids = np.array([number * 1_000_003 + 5 for number in counts], np.uint64)
    found = StackColumns.from_texts(texts)
    return rows.Columns(ids, found, ("c", "d"), ("count", "nanoseconds"), (0, 0), values, values[:, 0])


pairs = st.tuples(st.integers(0, 1000), st.integers(0, 1 << 50))


@given(st.lists(st.dictionaries(st.integers(0, 12), pairs, max_size=8), min_size=2, max_size=8), st.randoms())
@settings(max_examples=200, deadline=None)
def test_growth_adds_up_to_last_minus_first_for_every_stack(steps, random):
    growth, state, got, first = Growth(), {}, {}, None
    for number, step in enumerate(steps):
        for stack, (count, delay) in step.items():
            old = state.get(stack, (0, 0))
            state[stack] = (old[0] + count, old[1] + delay)
        # Go lists stacks in no fixed order.
        listed = dict(random.sample(list(state.items()), len(state)))
        grown = growth.advance(columns_of(listed), "p", NOW + number * SECOND)
        if first is None:
            assert grown is None
            first = dict(state)
            continue
        assert not grown.restarted
        assert grown.start_ns == NOW + (number - 1) * SECOND
        assert np.array_equal(grown.columns.events, grown.columns.values[:, 0])
        for text, values in zip(grown.columns.stacks.texts().to_pylist(), grown.columns.values.tolist(), strict=True):
            old = got.get(text, (0, 0))
            got[text] = (old[0] + values[0], old[1] + values[1])
    for stack, (count, delay) in state.items():
        before = first.get(stack, (0, 0))
        assert got.get(f"f{stack}", (0, 0)) == (count - before[0], delay - before[1])


@pytest.mark.parametrize(
    ("process", "after"),
    [
        ("q", {1: (9, 90), 2: (9, 90)}),  # another process, though every value is higher
        ("p", {1: (4, 90), 2: (5, 50)}),  # a value fell
        ("p", {1: (9, 90)}),  # a stack is gone
        ("", {2: (1, 1)}),
    ],
)
def test_a_restart_counts_from_zero_and_only_once(process, after):
    growth = Growth()
    growth.advance(columns_of({1: (5, 50), 2: (5, 50)}), "p", NOW)
    grown = growth.advance(columns_of(after), process, NOW + SECOND)
    assert grown.restarted
    assert grown.columns.values.tolist() == [list(v) for v in after.values()]
    again = growth.advance(columns_of(after), process, NOW + 2 * SECOND)
    assert not again.restarted
    assert not again.columns.values.any()


def test_growth_after_a_long_silence_is_stamped_as_the_last_hour():
    growth = Growth()
    growth.advance(columns_of({}), "p", NOW)
    later = NOW + 86_400 * SECOND
    assert growth.advance(columns_of({1: (1, 1)}), "p", later).start_ns == later - 3600 * SECOND
    # A clock that was set back: the interval is never empty.
    assert growth.advance(columns_of({1: (2, 2)}), "p", NOW).start_ns == NOW - 1


def test_jobs_are_aligned_and_spread():
    targets = [ScrapeTarget(f"http://10.0.0.{i}:6060") for i in range(100)]
    jobs = [Job(t, "heap", 60) for t in targets]
    due = [job.next_ns(NOW) for job in jobs]
    assert all(NOW < at <= NOW + 60 * SECOND for at in due)
    assert [job.next_ns(at) for job, at in zip(jobs, due, strict=True)] == [at + 60 * SECOND for at in due]
    assert [job.next_ns(at - 1) for job, at in zip(jobs, due, strict=True)] == due
    # Spread: no tenth of the interval has more than a third of them.
    assert max(np.bincount([(at - NOW) * 10 // (60 * SECOND + 1) for at in due])) < 33
    growing = [Job(t, "mutex", 60).first_ns(NOW) for t in targets]
    assert all(NOW <= at <= NOW + 2 * SECOND for at in growing)
    assert len(set(growing)) == 100


@pytest.mark.parametrize("scale", [1, 1 << 40, -1])
def test_distinct_columns_are_found_whatever_their_numbers(scale):
    key = np.random.default_rng(7).integers(0, 5, (4, 211)) * scale
    distinct, which = pprof._distinct(key)
    assert np.array_equal(distinct[:, which], key)
    assert distinct.shape[1] == np.unique(key, axis=1).shape[1]


def test_ids_are_found_whether_they_count_from_one_or_not():
    wanted = np.array([0, 1, 3, 4, (1 << 64) - 1], np.uint64)
    for ids, places in (([1, 2, 3], [-1, 0, 2, -1, -1]), ([3, 1, 7], [-1, 1, 0, -1, -1]), ([], [-1] * 5)):
        assert pprof._find(np.array(ids, np.uint64), wanted).tolist() == places
