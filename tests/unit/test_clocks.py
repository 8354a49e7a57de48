"""Clocks that run ahead are set back to the broker's, nothing else is touched."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streams.schema import clocks

APPEND = 1_700_000_000_000_000_000
DAY = 86_400_000_000_000


def test_a_clock_one_day_ahead_is_clamped_and_counted():
    times = np.array([APPEND, APPEND + DAY, APPEND + clocks.MAX_AHEAD_NS, APPEND + clocks.MAX_AHEAD_NS + 1])
    clamped, count = clocks.clamp(times, APPEND)
    assert count == 2
    assert clamped.tolist() == [APPEND, APPEND, APPEND + clocks.MAX_AHEAD_NS, APPEND]
    assert times[1] == APPEND + DAY  # the input stays


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_clamping_is_idempotent_and_leaves_the_past_alone(times):
    once, count = clocks.clamp(np.array(times, np.int64), APPEND)
    twice, none = clocks.clamp(once, APPEND)
    assert (twice.tolist(), none) == (once.tolist(), 0)
    assert [b for a, b in zip(times, once.tolist(), strict=True) if a <= APPEND] == [a for a in times if a <= APPEND]
    assert count == sum(a > APPEND + clocks.MAX_AHEAD_NS for a in times)


def test_a_batch_is_clamped_in_its_time_column_only():
    batch = pa.RecordBatch.from_pydict(
        {"value": pa.array([1, 2]), "time_ns": pa.array([5, APPEND + DAY], pa.int64())},
    )
    found, count = clocks.clamp_batch(batch, APPEND)
    assert count == 1
    assert found.to_pydict() == {"value": [1, 2], "time_ns": [5, APPEND]}
    assert found.schema == batch.schema
