"""Clocks that run ahead: event times beyond the broker's append time plus a bound are set back to that bound.

The reference is the append time stored with the record, so every reader, and every replay, clamps alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_AHEAD_NS = 10_000_000_000


def clamp(
    time_ns: NDArray[np.int64], append_ns: int, max_ahead_ns: int = MAX_AHEAD_NS
) -> tuple[NDArray[np.int64], int]:
    """Return (times, how many were clamped); times later than ``append_ns + max_ahead_ns`` become ``append_ns``."""
    ahead = time_ns > append_ns + max_ahead_ns
    clamped = int(np.count_nonzero(ahead))
    if clamped:
        time_ns = np.where(ahead, np.int64(append_ns), time_ns)
    return time_ns, clamped


def clamp_batch(batch: pa.RecordBatch, append_ns: int, max_ahead_ns: int = MAX_AHEAD_NS) -> tuple[pa.RecordBatch, int]:
    """Clamp the ``time_ns`` column of a decoded raw batch; returns (batch, how many rows were clamped)."""
    times, clamped = clamp(batch.column("time_ns").to_numpy(), append_ns, max_ahead_ns)
    if clamped:
        at = batch.schema.get_field_index("time_ns")
        batch = batch.set_column(at, batch.schema.field(at), pa.array(times, pa.int64()))
    return batch, clamped
