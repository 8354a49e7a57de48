"""Clocks too far from the broker's, ahead or behind, are brought back to it; nothing else is touched."""

from collections import Counter
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks import rows
from streams.hotspots import Hotspots
from streams.schema import clocks, codec, stack_columns
from streams.schema.errors import CorruptRecordError
from streams.schema.messages import PROFILE, TEXT, Interval
from streams.watermark import Snapshot, WindowSettings
from streams.windows import PartitionWindows

APPEND = 1_700_000_000_000_000_000
DAY = 86_400_000_000_000


def test_a_clock_one_day_ahead_is_clamped_and_counted():
    times = np.array([APPEND, APPEND + DAY, APPEND + clocks.MAX_AHEAD_NS, APPEND + clocks.MAX_AHEAD_NS + 1])
    clamped, count = clocks.clamp(times, APPEND)
    assert count == 2
    assert clamped.tolist() == [APPEND, APPEND, APPEND + clocks.MAX_AHEAD_NS, APPEND]
    assert times[1] == APPEND + DAY  # the input stays


LAST = 2**63 - 1
ANY_CLOCK = st.one_of(
    st.integers(-(2**63), LAST),  # centuries
    st.integers(APPEND - 60 * DAY, APPEND + 60 * DAY),
    st.integers(APPEND - 20_000_000_000, APPEND + 20_000_000_000),
    st.sampled_from([-1, 0, APPEND - clocks.MAX_BEHIND_NS - 1, APPEND - clocks.MAX_BEHIND_NS]),
)


@given(st.lists(ANY_CLOCK, max_size=20))
def test_any_clock_ends_within_the_bounds_and_what_is_believed_stays(times):
    once, count = clocks.clamp(np.array(times, np.int64), APPEND)
    twice, none = clocks.clamp(once, APPEND)
    assert (twice.tolist(), none) == (once.tolist(), 0)
    earliest, latest = clocks.bounds(APPEND)
    believed = [earliest <= time <= latest for time in times]
    assert count == believed.count(False)
    for before, after, fine in zip(times, once.tolist(), believed, strict=True):
        assert after == (before if fine else APPEND if before > latest else earliest)
        assert clocks.clamp_one(before, APPEND) == after


@pytest.mark.parametrize("append_ns", [-1, 0, -(2**63), LAST, 2**70])
def test_a_record_without_an_append_time_is_corrupt(append_ns):
    with pytest.raises(CorruptRecordError, match="LogAppendTime"):
        clocks.clamp(np.array([5], np.int64), append_ns)


def test_a_batch_is_clamped_in_its_time_column_only():
    batch = pa.RecordBatch.from_pydict(
        {"value": pa.array([1, 2, 3]), "time_ns": pa.array([5, APPEND + DAY, APPEND - 6 * DAY], pa.int64())},
    )
    found, count = clocks.clamp_batch(batch, APPEND)
    assert count == 2
    assert found.to_pydict() == {"value": [1, 2, 3], "time_ns": [APPEND - 7 * DAY, APPEND, APPEND - 6 * DAY]}
    assert found.schema == batch.schema


def profile(times, values):
    n = len(times)
    stack = stack_columns.entries(["main\t\t0"], [1])
    columns = dict.fromkeys(PROFILE.names, pa.array(["x"] * n).dictionary_encode().cast(TEXT))
    columns |= {
        "time_ns": pa.array(times, pa.int64()),
        "stack": pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), stack),
        "value": pa.array(values, pa.int64()),
        "period": pa.array([1] * n, pa.int64()),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in PROFILE.names], schema=PROFILE)


INTERVAL = st.tuples(ANY_CLOCK, ANY_CLOCK).map(lambda pair: sorted(max(-LAST, time) for time in pair))
MESSAGE = st.tuples(
    st.lists(st.tuples(ANY_CLOCK, st.integers(1, 1000)), min_size=1, max_size=12), INTERVAL, st.integers(0, 3600)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=6))
def test_worker_and_sink_put_any_clock_into_the_same_windows_and_into_few_days(messages):
    windows = PartitionWindows(Hotspots(10), WindowSettings(60, 30), 0, Snapshot())
    stored, counted, clamped, last_append = Counter(), Counter(), 0, APPEND
    for offset, (given_rows, (start_ns, end_ns), later_s) in enumerate(messages):
        times, values = zip(*given_rows, strict=True)
        last_append = max(last_append, append_ns := APPEND + later_s * 10**9)
        interval = Interval("cpu", "c", "n", "p", 1, start_ns, end_ns)
        value, headers = codec.encode("profile", profile(times, values), interval)
        message = rows.decode("perfstream.raw.profiles", 0, offset, append_ns, headers, value)
        clamped += message.clamped
        table = rows.samples([rows.lean(message, set())])
        accounts = rows.intervals([message])
        for when, amount in zip(table["time"].to_pylist(), table["value"].to_pylist(), strict=True):
            stored[int(when.timestamp()) // 60 * 60] += amount
            assert abs(when - accounts["append_time"][0].as_py()) <= timedelta(days=7)
        _, again, batch = codec.decode(headers, value)
        windows.take(offset, again, batch, append_ns)
    for _, _, batch in windows.flush().results:
        for row in batch.to_pylist():
            counted[row["window_start_ns"] // 10**9] += row["total"]
    assert stored == counted
    assert windows.counts.clamped_rows == clamped
    assert windows.snapshot.watermark_ns <= last_append + clocks.MAX_AHEAD_NS
