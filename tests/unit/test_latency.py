"""Latency states: any split of the rows into messages and calls gives the same sums, to the last bit."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import latency
from streams.latency import Latencies
from streams.schema.messages import LATENCY, TEXT, WORKLOAD, Interval

HEAD = {"window_start_ns": 0, "window_s": 60, "shard": 0, "first_offset": 0, "last_offset": 0, "late": 0}
ROW = st.tuples(
    st.sampled_from(["read", "write"]),
    st.dictionaries(st.integers(0, 975), st.integers(1, 2**50), max_size=5),
    st.integers(0, 2**62),
)


def batch(rows, period=1):
    def text(values):
        return pa.array(values, pa.string()).dictionary_encode().cast(TEXT)

    n = len(rows)
    columns = dict.fromkeys([*WORKLOAD, "probe"], text(["x"] * n))
    columns |= {
        "time_ns": pa.array([0] * n, pa.int64()),
        "operation": text([r[0] for r in rows]),
        "buckets": pa.array([sorted(r[1]) for r in rows], LATENCY.field("buckets").type),
        "counts": pa.array([[r[1][b] for b in sorted(r[1])] for r in rows], LATENCY.field("counts").type),
        "count": pa.array([sum(r[1].values()) for r in rows], pa.uint64()),
        "sum_ns": pa.array([r[2] for r in rows], pa.uint64()),
        "max_ns": pa.array([r[2] for r in rows], pa.uint64()),
        "period": pa.array([period] * n, pa.uint32()),
    }
    return pa.RecordBatch.from_arrays([columns[n] for n in LATENCY.names], schema=LATENCY)


def read(node="n"):
    return Interval("syscall", "c", node, "p", 0, 0, 1)


def plain(rows):
    found = {}
    for operation, histogram, size in rows:
        merged, count, total, largest = found.get(operation, ({}, 0, 0, 0))
        for bucket, n in histogram.items():
            merged[bucket] = merged.get(bucket, 0) + n
        found[operation] = merged, count + sum(histogram.values()), (total + size) % 2**64, max(largest, size)
    return found


def told(table):
    return {
        r["operation"]: (dict(zip(r["buckets"], r["counts"], strict=True)), r["count"], r["sum_ns"], r["max_ns"])
        for r in table.to_pylist()
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ROW, min_size=1, max_size=5), min_size=1, max_size=5), st.sampled_from([1, 200_000]))
def test_histograms_add_exactly_in_any_pieces(messages, pending):
    kind = Latencies()
    state = kind.state()
    latency._PENDING, before = pending, latency._PENDING
    try:
        for rows in messages:
            taken = kind.rows(read(), batch(rows))
            odd = np.arange(0, len(rows), 2), np.arange(1, len(rows), 2)
            for part in odd:
                taken.add_to(state, part)
    finally:
        latency._PENDING = before
    table = kind.changed(state, HEAD)
    assert told(table) == plain([row for rows in messages for row in rows])
    for row in table.to_pylist():
        assert row["buckets"] == sorted(row["buckets"])


def test_only_changed_rows_are_given_again_each_whole():
    kind = Latencies()
    state = kind.state()
    kind.rows(read(), batch([("read", {3: 1}, 5), ("write", {4: 1}, 6)])).add_to(state, slice(None))
    assert set(told(kind.changed(state, HEAD))) == {"read", "write"}
    kind.rows(read(), batch([("write", {4: 2, 9: 1}, 1)])).add_to(state, slice(None))
    assert told(kind.changed(state, HEAD)) == {"write": ({4: 3, 9: 1}, 4, 7, 6)}
    assert state.dirty == 0


def test_nodes_are_kept_apart():
    kind = Latencies()
    state = kind.state()
    for node in ("a", "b", "a"):
        kind.rows(read(node), batch([("read", {3: 1}, 5)])).add_to(state, slice(None))
    assert sorted((r["node"], r["count"]) for r in kind.changed(state, HEAD).to_pylist()) == [("a", 2), ("b", 1)]


def test_rows_of_a_slice_of_a_batch_are_read_at_their_place():
    kind = Latencies()
    state = kind.state()
    rows = [("read", {1: 1}, 1), ("write", {2: 2, 3: 3}, 2), ("read", {}, 3)]
    kind.rows(read(), batch(rows).slice(1)).add_to(state, slice(None))
    assert told(kind.changed(state, HEAD)) == plain(rows[1:])


def test_the_coarsest_sampling_period_of_a_window_is_told():
    kind = Latencies()
    state = kind.state()
    for rows, period in (([("read", {3: 1}, 3)], 1), ([("read", {4: 64}, 4), ("write", {5: 64}, 5)], 64)):
        kind.rows(read(), batch(rows, period)).add_to(state, slice(None))
    kind.rows(read(), batch([("read", {3: 1}, 3), ("open", {6: 1}, 6)])).add_to(state, slice(None))
    found = kind.changed(state, HEAD).to_pylist()
    assert {row["operation"]: row["period"] for row in found} == {"read": 64, "write": 64, "open": 1}
