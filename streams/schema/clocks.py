"""Clocks that are wrong: event times too far from the broker's append time are brought back to it, and counted.

Later than the append time plus ``MAX_AHEAD_NS``: nothing can be published before it happened, so the row gets the
append time. Earlier than the append time less ``MAX_BEHIND_NS``: longer than any spool is expected to hold, so the row
gets that bound, never a time nearer to now than it has to. The reference is the append time stored with the record, so
every reader, and every replay, clamps alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from streams.schema.errors import CorruptRecordError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_AHEAD_NS = 10_000_000_000
MAX_BEHIND_NS = 7 * 86_400_000_000_000
"""Seven days: well within what the tables keep, and few enough for one insert, where each day is a partition."""
_LAST_APPEND_NS = (1 << 63) - 1 - MAX_AHEAD_NS


def bounds(append_ns: int) -> tuple[int, int]:
    """Return the earliest and the latest time that is believed.

    Raises:
        CorruptRecordError: the append time itself is none, which a topic with the producers' own times may hold.
    """
    if not MAX_BEHIND_NS <= append_ns <= _LAST_APPEND_NS:
        raise CorruptRecordError("the record carries no append time; its topic must have LogAppendTime")
    return append_ns - MAX_BEHIND_NS, append_ns + MAX_AHEAD_NS


def clamp(time_ns: NDArray[np.int64], append_ns: int) -> tuple[NDArray[np.int64], int]:
    """Return (times, how many were clamped); what is believed stays as it is, and so does the array given.

    Raises:
        CorruptRecordError: the append time is none.
    """
    earliest, latest = bounds(append_ns)
    if not len(time_ns) or (time_ns.min() >= earliest and time_ns.max() <= latest):
        return time_ns, 0
    ahead, behind = time_ns > latest, time_ns < earliest
    clamped = np.where(ahead, np.int64(append_ns), np.where(behind, np.int64(earliest), time_ns))
    return clamped, int(np.count_nonzero(ahead) + np.count_nonzero(behind))


def clamp_one(time_ns: int, append_ns: int) -> int:
    """Return one time as ``clamp`` does."""
    earliest, latest = bounds(append_ns)
    return append_ns if time_ns > latest else max(time_ns, earliest)


def clamp_batch(batch: pa.RecordBatch, append_ns: int) -> tuple[pa.RecordBatch, int]:
    """Clamp the ``time_ns`` column of a decoded raw batch; returns (batch, how many rows were clamped).

    Raises:
        CorruptRecordError: the append time is none.
    """
    times, clamped = clamp(batch.column("time_ns").to_numpy(), append_ns)
    if clamped:
        at = batch.schema.get_field_index("time_ns")
        batch = batch.set_column(at, batch.schema.field(at), pa.array(times, pa.int64()))
    return batch, clamped
