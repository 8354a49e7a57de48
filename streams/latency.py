"""Latency windows: histogram, count, sum and maximum of one (cluster, node, workload, probe, operation) and window.

Buckets and counts are added exactly; nothing is interpolated. A state keeps one entry for each bucket in use, and the
coarsest sampling period of what went into it: 1 says that the counts are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streams.columns import Key, constant, group_rows, grown, text_column
from streams.schema.messages import IDENTITY, LATENCY_WINDOW, WORKLOAD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.schema.messages import Interval

GROUP = (*WORKLOAD, "probe", "operation")
_BITS = 16
_PENDING = 200_000


class LatencyState:
    """The sums of one window: columns by group, and one sorted list of (group, bucket) codes with their counts."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self._ids: dict[Key, int] = {}
        self._count, self._sum, self._max = (np.zeros(0, np.uint64) for _ in range(3))
        self._period = np.zeros(0, np.uint32)
        self._dirty = np.zeros(0, np.bool_)
        self._codes = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.uint64)
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []
        self._waiting = 0

    @property
    def dirty(self) -> int:
        """Return how many rows have changed since ``take_changed``."""
        return int(np.count_nonzero(self._dirty))

    def add(self, keys: list[Key], inverse: NDArray[np.int64], rows: NDArray[np.int64], read: LatencyRows) -> None:
        """Add rows of one message; ``inverse`` indexes ``keys`` for each row of the message."""
        groups = np.full(len(keys), -1, np.int64)
        for at in np.unique(inverse[rows]).tolist():
            known = self._ids.get(keys[at])
            if known is None:
                known = self._ids[keys[at]] = len(self.keys)
                self.keys.append(keys[at])
            groups[at] = known
        size = len(self.keys)
        self._count, self._sum, self._max = (grown(a, size) for a in (self._count, self._sum, self._max))
        self._period, self._dirty = grown(self._period, size), grown(self._dirty, size)
        mine = groups[inverse[rows]]
        np.add.at(self._count, mine, read.count[rows])
        np.add.at(self._sum, mine, read.sum_ns[rows])
        np.maximum.at(self._max, mine, read.max_ns[rows])
        np.maximum.at(self._period, mine, read.period[rows])
        self._dirty[mine] = True
        lengths = read.lengths[rows]
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        at_entry = np.arange(total) + np.repeat(read.offsets[rows] - ends + lengths, lengths)
        self._pending.append((np.repeat(mine, lengths) << _BITS | read.buckets[at_entry], read.counts[at_entry]))
        self._waiting += total
        if self._waiting > _PENDING:
            self._merge()

    def _merge(self) -> None:
        if self._pending:
            codes = np.concatenate([self._codes, *(codes for codes, _ in self._pending)])
            counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
            self._codes, inverse = np.unique(codes, return_inverse=True)
            self._counts = np.zeros(len(self._codes), np.uint64)
            np.add.at(self._counts, inverse, counts)
            self._pending, self._waiting = [], 0

    def take_changed(self, head: dict[str, int]) -> pa.RecordBatch:
        """Return the rows that changed since the last call, each with its whole histogram."""
        self._merge()
        groups = np.flatnonzero(self._dirty)
        self._dirty[groups] = False
        rows = len(groups)
        begin = np.searchsorted(self._codes, groups << _BITS)
        lengths = np.searchsorted(self._codes, (groups + 1) << _BITS) - begin
        ends = np.cumsum(lengths)
        entries = np.arange(int(ends[-1]) if rows else 0) + np.repeat(begin - ends + lengths, lengths)
        offsets = pa.array(np.concatenate(([0], ends)), pa.int32())
        columns: dict[str, Any] = {
            name: constant(value, rows, LATENCY_WINDOW.field(name).type) for name, value in head.items()
        }
        keys = [self.keys[g] for g in groups.tolist()]
        for at, name in enumerate((*IDENTITY, "probe", "operation")):
            columns[name] = text_column([key[at] for key in keys], np.arange(rows))
        buckets = (self._codes[entries] & ((1 << _BITS) - 1)).astype(np.uint16)
        columns["buckets"] = pa.ListArray.from_arrays(offsets, pa.array(buckets))
        columns["counts"] = pa.ListArray.from_arrays(offsets, pa.array(self._counts[entries]))
        for name, values in (
            ("count", self._count),
            ("sum_ns", self._sum),
            ("max_ns", self._max),
            ("period", self._period),
        ):
            columns[name] = pa.array(values[groups])
        return pa.RecordBatch.from_arrays(
            [columns[name].cast(LATENCY_WINDOW.field(name).type) for name in LATENCY_WINDOW.names],
            schema=LATENCY_WINDOW,
        )


class Latencies:
    """Turns raw latency batches into window states. One for each raw partition."""

    schema = "latency_window"
    collector = "latency_windows"

    def state(self) -> LatencyState:
        """Return an empty window state."""
        return LatencyState()

    def rows(self, interval: Interval, batch: pa.RecordBatch) -> LatencyRows:
        """Return one message's rows, read into arrays."""
        return LatencyRows(interval, batch)

    def changed(self, state: LatencyState, head: dict[str, int]) -> pa.RecordBatch:
        """Return a state's rows that changed since the last call."""
        return state.take_changed(head)

    def tidy(self, states: list[LatencyState]) -> list[LatencyState]:
        """Nothing outlives a window here."""
        return states


class LatencyRows:
    """The rows of one message as arrays; histogram entries are concatenated."""

    def __init__(self, interval: Interval, batch: pa.RecordBatch) -> None:
        buckets, counts = batch.column("buckets"), batch.column("counts")
        offsets = buckets.offsets.to_numpy().astype(np.int64)
        self.lengths = np.diff(offsets)
        self.offsets = offsets[:-1] - offsets[0]
        self.buckets = buckets.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        self.counts = counts.flatten().to_numpy(zero_copy_only=False)
        self.count, self.sum_ns, self.max_ns, self.period = (
            batch.column(name).to_numpy() for name in ("count", "sum_ns", "max_ns", "period")
        )
        self._keys, self._inverse = group_rows(batch, GROUP, (interval.cluster, interval.node))

    def add_to(self, state: LatencyState, rows: NDArray[np.int64] | slice) -> None:
        """Add the rows given to a window's state."""
        picked = np.arange(len(self._inverse))[rows] if isinstance(rows, slice) else rows
        state.add(self._keys, self._inverse, picked, self)
