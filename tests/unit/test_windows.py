"""The window core against a plain model: order, repetition, crash and replay change nothing."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.hotspots import Hotspots
from streams.latency import Latencies
from streams.publish import encoded
from streams.schema import codec, stack_columns, stacks
from streams.schema.errors import SettingsError
from streams.schema.messages import LATENCY, OTHER, PROFILE, TEXT, WORKLOAD, Interval
from streams.vocabulary import Vocabulary
from streams.watermark import SECOND, Snapshot, WindowSettings
from streams.windows import PartitionWindows

WINDOW, GRACE = 60, 30
T0 = 1_700_000_040 * SECOND  # a multiple of 60 s


def dictionary(texts):
    return pa.array(texts, pa.string()).dictionary_encode().cast(TEXT)


def profile(rows):
    """Rows of (time_s after T0, service, functions root first, value) as a batch."""
    texts = [stacks.join([stacks.frame_text(f) for f in functions]) for _, _, functions, _ in rows]
    known = list(dict.fromkeys(texts))
    values = stack_columns.entries(known)
    columns = {
        "time_ns": pa.array([T0 + r[0] * SECOND for r in rows], pa.int64()),
        "service": dictionary([r[1] for r in rows]),
        "type": dictionary(["cpu"] * len(rows)),
        "unit": dictionary(["nanoseconds"] * len(rows)),
        "stack": pa.DictionaryArray.from_arrays(pa.array([known.index(t) for t in texts], pa.int32()), values),
        "value": pa.array([r[3] for r in rows], pa.int64()),
        "period": pa.array([0] * len(rows), pa.int64()),
    }
    for name in WORKLOAD:
        columns.setdefault(name, dictionary([""] * len(rows)))
    return pa.RecordBatch.from_arrays([columns[n] for n in PROFILE.names], schema=PROFILE)


def interval(end_s, node="n"):
    return Interval("cpu", "c", node, "p", 0, T0, T0 + end_s * SECOND)


@dataclass
class Downstream:
    """What ReplacingMergeTree does: the row with the greatest last offset wins; and the commit."""

    rows: dict = field(default_factory=dict)
    commits: list = field(default_factory=list)

    def publish(self, flush, keys):
        for _, _, batch in flush.results:
            for row in batch.to_pylist():
                key = tuple(row[k] for k in keys)
                if key not in self.rows or self.rows[key]["last_offset"] <= row["last_offset"]:
                    self.rows[key] = row


NAME = ("window_start_ns", "shard", "first_offset")
HOT = (*NAME, "cluster", "namespace", "service", "version", "type", "unit", "function")


def run(log, moves, downstream, make, config, keys=HOT):
    """Take the log in; each move may flush, publish only a part, commit, crash to any commit, or repeat messages."""
    downstream.commits.append((0, ""))

    def restart(commit):
        offset, text = commit
        return PartitionWindows(make(), config, 3, Snapshot.unpack(text, offset, config), next_offset=offset), offset

    windows, at = restart(downstream.commits[-1])
    moves = iter(moves)
    while at < len(log):
        end_s, batch, append_s = log[at]
        windows.take(at, interval(end_s), batch, T0 + append_s * SECOND)
        at += 1
        move = next(moves, None)
        if move is None:
            continue
        kind, number = move
        if kind == "repeat":
            at = max(0, at - number)
        elif windows.caught_up:
            flush = windows.flush(partials=number % 2 == 0)
            if kind == "flush":
                downstream.publish(flush, keys)
                downstream.commits.append((flush.commit_offset, flush.snapshot.pack(config)))
            elif kind == "crash":
                flush.results[:] = flush.results[: number % (len(flush.results) + 1)]
                downstream.publish(flush, keys)
                windows, at = restart(downstream.commits[-1 - number % len(downstream.commits)])
    flush = windows.flush()
    downstream.publish(flush, keys)
    return windows


def whole(row):
    """What a row says; its last offset tells when it was published last, which flushes may choose."""
    return {name: value for name, value in row.items() if name != "last_offset"}


ROW = st.tuples(
    st.integers(0, 200),
    st.sampled_from(["a", "b"]),
    st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=5),
    st.integers(1, 9),
)
MESSAGE = st.tuples(st.integers(0, 260), st.lists(ROW, min_size=0, max_size=6), st.integers(180, 400))
MOVE = st.tuples(st.sampled_from(["flush", "flush", "crash", "repeat"]), st.integers(0, 7))


def model(messages):
    sums = Counter()
    for _, rows, append_s in messages:
        for time_s, service, _, value in rows:
            time_s = append_s if time_s > append_s + 10 else time_s
            sums[time_s // WINDOW, service] += value
    return sums


@settings(max_examples=80, deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=14), st.lists(MOVE, max_size=30), st.sampled_from([1, 2, 4096]))
def test_any_interleaving_counts_every_row_once(messages, moves, max_functions):
    config = WindowSettings(WINDOW, GRACE, max_functions)
    log = [(end_s, profile(rows), append_s) for end_s, rows, append_s in messages]

    def make():
        return Hotspots(max_functions, Vocabulary(max_slots=8))  # so small that it is carried over all the time

    disturbed, calm = Downstream(), Downstream()
    run(log, moves, disturbed, make, config)
    run(log, [], calm, lambda: Hotspots(max_functions), config)
    assert disturbed.rows.keys() == calm.rows.keys()
    for key, row in calm.rows.items():
        assert whole(row) == whole(disturbed.rows[key])

    sums = Counter()
    for row in disturbed.rows.values():
        sums[(row["window_start_ns"] - T0) // (WINDOW * SECOND), row["service"]] += row["self"]
    assert +sums == model(messages)

    before = {k: whole(r) for k, r in disturbed.rows.items()}
    run(log, moves[::-1], disturbed, make, config)  # all of it again into the same table
    assert {k: whole(r) for k, r in disturbed.rows.items()} == before


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 19), st.lists(ROW, min_size=1, max_size=4)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_any_order_with_delays_within_grace_gives_the_same_windows(messages, chance):
    """Nodes count intervals of 10 s; each message is delayed by up to the grace, so that they overtake each other."""
    config = WindowSettings(WINDOW, GRACE)
    sent = []
    for step, (delay_s, rows) in enumerate(messages):
        start_s = step * 10
        shifted = [(start_s + r[0] % 10, *r[1:]) for r in rows]
        sent.append((start_s + 10 + delay_s, start_s + 10, shifted))

    def sums(order):
        table = Downstream()
        run([(end_s, profile(rows), 1000) for _, end_s, rows in order], [], table, lambda: Hotspots(4096), config)
        found = Counter()
        for row in table.rows.values():
            for column in ("self", "total"):
                found[row["window_start_ns"], row["service"], row["function"], row["late"], column] += row[column]
        return found

    overtaken = list(sent)
    chance.shuffle(overtaken)
    overtaken.sort(key=lambda m: m[0])  # of equal arrival in any order
    assert sums(overtaken) == sums(sent)
    assert not any(key[3] for key in sums(overtaken))


def test_a_record_that_cannot_be_read_closes_nothing():
    windows = PartitionWindows(Hotspots(10), WindowSettings(WINDOW, GRACE), 0, Snapshot())
    append = T0 + 1000 * SECOND
    windows.take(0, interval(70), profile([(0, "a", "x", 1)]), append)
    windows.skip(1)
    assert list(windows.open) == [T0]
    windows.take(2, interval(71), profile([(1, "a", "x", 2)]), append)
    assert windows.counts.late_rows == 0
    assert windows.counts.skipped == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=10), st.sampled_from([1, 3, 4096]))
def test_self_and_total_equal_a_plain_count_with_other_mapped_first(messages, max_functions):
    config = WindowSettings(WINDOW, GRACE, max_functions)
    table = Downstream()
    run([(e, profile(r), a) for e, r, a in messages], [], table, lambda: Hotspots(max_functions), config)
    kept = defaultdict(set)
    for row in table.rows.values():
        kept[row["window_start_ns"], row["first_offset"], row["service"]].add(row["function"])
    for functions in kept.values():
        assert len(functions - {OTHER}) <= max_functions

    wanted = Counter()
    watermark, first = -(10**9), {}
    for offset, (end_s, rows, append_s) in enumerate(messages):
        for time_s, service, functions, value in rows:
            time_s = append_s if time_s > append_s + 10 else time_s
            window = time_s // WINDOW
            late = (window + 1) * WINDOW <= watermark - GRACE
            name = offset if late else first.setdefault(window, offset)
            start = T0 + window * WINDOW * SECOND
            mine = [f if f in kept[start, name, service] else OTHER for f in functions]
            wanted[start, name, service, mine[-1], "self", int(late)] += value
            for function in set(mine):
                wanted[start, name, service, function, "total", int(late)] += value
        watermark = max(watermark, append_s if end_s > append_s + 10 else end_s)
    found = Counter()
    for row in table.rows.values():
        for column in ("self", "total"):
            found[
                row["window_start_ns"], row["first_offset"], row["service"], row["function"], column, row["late"]
            ] += row[column]
    assert +found == wanted


def test_a_window_closes_at_end_plus_grace_and_later_rows_are_late():
    windows = PartitionWindows(Hotspots(10), WindowSettings(WINDOW, GRACE), 0, Snapshot())
    append = T0 + 1000 * SECOND
    windows.take(0, interval(89), profile([(0, "a", "x", 1)]), append)
    assert list(windows.open) == [T0]
    windows.take(1, interval(90), profile([(10, "a", "x", 2)]), append)  # its own end does not make it late
    assert list(windows.open) == []
    windows.take(2, interval(70), profile([(20, "a", "x", 4), (21, "a", "x", 8)]), append)
    flush = windows.flush()
    found = [(r["first_offset"], r["last_offset"], r["late"], r["self"])
             for _, _, batch in flush.results for r in batch.to_pylist()]  # fmt: skip
    assert found == [(0, 1, 0, 3), (2, 2, 1, 12)]
    assert windows.counts.late_rows == 2
    assert flush.commit_offset == 3


def test_a_clock_ahead_is_clamped_and_closes_nothing():
    windows = PartitionWindows(Hotspots(10), WindowSettings(WINDOW, GRACE), 0, Snapshot())
    windows.take(0, interval(5), profile([(0, "a", "x", 1)]), T0 + 5 * SECOND)
    windows.take(1, interval(9_999), profile([(9_999, "a", "x", 2)]), T0 + 6 * SECOND)
    assert windows.counts.clamped_rows == 1
    assert list(windows.open) == [T0]
    assert windows.snapshot.watermark_ns == T0 + 6 * SECOND


def test_a_commit_reaches_back_to_the_oldest_open_window_only():
    windows = PartitionWindows(Hotspots(10), WindowSettings(WINDOW, 0), 0, Snapshot(), next_offset=0)
    append = T0 + 1000 * SECOND
    for offset, end_s in enumerate((10, 20, 70, 80)):
        windows.take(offset, interval(end_s), profile([(end_s - 10, "a", "x", 1)]), append)
    windows.skip(4)
    flush = windows.flush()
    # message 2 covers 60..70: the first of the open window
    assert (flush.commit_offset, flush.snapshot.next_offset) == (2, 5)


def test_other_settings_than_the_commits_are_refused():
    text = Snapshot(5, 1, 0).pack(WindowSettings(60, 30, 10))
    assert Snapshot.unpack(text, 4, WindowSettings(60, 99, 10)) == Snapshot(5, 1, 0)
    for other in (WindowSettings(30, 30, 10), WindowSettings(60, 30, 11)):
        with pytest.raises(SettingsError, match="another group"):
            Snapshot.unpack(text, 4, other)
    with pytest.raises(SettingsError, match="not a window snapshot"):
        Snapshot.unpack("something else", 4, WindowSettings())


def test_a_longer_grace_after_a_restart_reopens_nothing():
    short, long = WindowSettings(WINDOW, 0), WindowSettings(WINDOW, 600)
    append = T0 + 1000 * SECOND
    first = PartitionWindows(Hotspots(10), short, 0, Snapshot())
    first.take(0, interval(70), profile([(0, "a", "x", 1), (61, "a", "x", 2)]), append)
    flush = first.flush()
    assert flush.commit_offset == 0
    again = PartitionWindows(Hotspots(10), long, 0, Snapshot.unpack(flush.snapshot.pack(short), 0, long))
    again.take(0, interval(70), profile([(0, "a", "x", 1), (61, "a", "x", 2)]), append)
    assert list(again.open) == [T0 + WINDOW * SECOND]


def latencies(rows):
    """Rows of (time_s, operation, {bucket: count})."""
    columns = {
        "time_ns": pa.array([T0 + r[0] * SECOND for r in rows], pa.int64()),
        "probe": dictionary(["syscall"] * len(rows)),
        "operation": dictionary([r[1] for r in rows]),
        "buckets": pa.array([sorted(r[2]) for r in rows], LATENCY.field("buckets").type),
        "counts": pa.array([[r[2][b] for b in sorted(r[2])] for r in rows], LATENCY.field("counts").type),
        "count": pa.array([sum(r[2].values()) for r in rows], pa.uint64()),
        "sum_ns": pa.array([sum(b * c for b, c in r[2].items()) for r in rows], pa.uint64()),
        "max_ns": pa.array([max(r[2]) for r in rows], pa.uint64()),
        "period": pa.array([1] * len(rows), pa.uint32()),
    }
    for name in WORKLOAD:
        columns.setdefault(name, dictionary([""] * len(rows)))
    return pa.RecordBatch.from_arrays([columns[n] for n in LATENCY.names], schema=LATENCY)


LAT = (*NAME, "cluster", "node", "probe", "operation")
LATENCY_ROW = st.tuples(
    st.integers(0, 200),
    st.sampled_from(["read", "write", ""]),
    st.dictionaries(st.integers(0, 975), st.integers(1, 2**40), min_size=1, max_size=6),
)
LATENCY_MESSAGE = st.tuples(st.integers(0, 260), st.lists(LATENCY_ROW, max_size=5), st.just(1000))


@settings(max_examples=60, deadline=None)
@given(st.lists(LATENCY_MESSAGE, min_size=1, max_size=10), st.lists(MOVE, max_size=20))
def test_latency_histograms_add_exactly(messages, moves):
    config = WindowSettings(WINDOW, GRACE)
    log = [(end_s, latencies(rows), append_s) for end_s, rows, append_s in messages]
    table, calm = Downstream(), Downstream()
    run(log, moves, table, Latencies, config, LAT)
    run(log, [], calm, Latencies, config, LAT)
    assert {k: whole(r) for k, r in table.rows.items()} == {k: whole(r) for k, r in calm.rows.items()}
    wanted, found = defaultdict(Counter), defaultdict(Counter)
    largest = defaultdict(int)
    for _, rows, _ in messages:
        for time_s, operation, histogram in rows:
            wanted[time_s // WINDOW, operation].update(histogram)
            wanted[time_s // WINDOW, operation]["sum"] += sum(b * c for b, c in histogram.items())
            wanted[time_s // WINDOW, operation]["count"] += sum(histogram.values())
            at = time_s // WINDOW, operation
            largest[at] = max(largest[at], *histogram)
    seen_largest = defaultdict(int)
    for row in table.rows.values():
        at = (row["window_start_ns"] - T0) // (WINDOW * SECOND), row["operation"]
        assert row["buckets"] == sorted(set(row["buckets"]))
        found[at].update(dict(zip(row["buckets"], row["counts"], strict=True)))
        found[at]["sum"] += row["sum_ns"]
        found[at]["count"] += row["count"]
        seen_largest[at] = max(seen_largest[at], row["max_ns"])
    assert found == wanted
    assert seen_largest == largest


def test_results_are_split_below_the_bound():
    windows = PartitionWindows(Hotspots(5000), WindowSettings(), 0, Snapshot())
    rng = np.random.default_rng(1)
    rows = [(0, "a", ["".join(map(chr, rng.integers(97, 123, 300)))], 1) for _ in range(500)]
    windows.take(0, interval(5), profile(rows), T0 + 5 * SECOND)
    (result,) = windows.flush().results
    parts = list(encoded(result, max_bytes=20_000))
    assert len(parts) > 4
    assert max(len(value) for value, _ in parts) <= 20_000
    assert sum(codec.decode(headers, value)[2].num_rows for value, headers in parts) == 500
