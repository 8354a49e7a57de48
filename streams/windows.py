"""The windows of one raw partition: which message counts where, what is published, what a restart needs to know.

Everything here is a pure function of the partition's messages, in their order. A window's state is named by the window,
the partition (shard) and the offset of the first message in it; every published row carries whole sums and replaces the
row of the same name with a smaller ``last_offset``. Only rows that changed since the last flush are published.

Why it is exact at any restart. A commit is one atomic pair: the offset C of the first message in any open window, and
the snapshot before message N (watermark, closed windows), taken when the results of all closed windows and late rows
before N had been acknowledged by the broker. A restart reads from C. Messages before N count only in windows that are
open at N: all of theirs lie at C or later, and none of them was late, because the watermark never falls. Their other
rows stand in windows closed before N, published for good. From N on, watermark and lateness evolve from the snapshot as
they did before. So the states are the same, under the same names, from any commit that was ever made, an old one too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from streams.schema.clocks import clamp, clamp_one
from streams.schema.messages import Interval
from streams.watermark import BEFORE_ALL, Snapshot, WindowSettings, starts

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

S = TypeVar("S", bound="State")
S_contra = TypeVar("S_contra", bound="State", contravariant=True)


class State(Protocol):
    """Sums of one window."""

    @property
    def dirty(self) -> int:
        """Return how many rows have changed."""


class Rows(Protocol[S_contra]):
    """One message, read."""

    def add_to(self, state: S_contra, rows: NDArray[np.int64] | slice, /) -> None:
        """Add rows to a state."""


class Kind(Protocol[S]):
    """What is counted: hotspots or latencies."""

    schema: str
    collector: str

    def state(self) -> S:
        """Return an empty state."""

    def rows(self, interval: Interval, batch: pa.RecordBatch) -> Rows[S]:
        """Read a message."""

    def changed(self, state: S, head: dict[str, int]) -> pa.RecordBatch:
        """Return the changed rows of a state and forget that they changed."""

    def tidy(self, states: list[S]) -> list[S]:
        """Bound what is kept beside the states."""


@dataclass(slots=True)
class Counts:
    """What has been taken; re-read messages are not counted again."""

    messages: int = 0
    rows: int = 0
    late_rows: int = 0
    clamped_rows: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Window(Generic[S]):
    """One state and its name."""

    start_ns: int
    first_offset: int
    state: S
    last_offset: int
    late: int = 0


@dataclass(frozen=True, slots=True)
class Flush:
    """Results to publish, and what may be committed once all of them are acknowledged."""

    results: list[tuple[str, Interval, pa.RecordBatch]]
    commit_offset: int
    snapshot: Snapshot


@dataclass
class PartitionWindows(Generic[S]):
    """Windows of one raw partition. Not thread-safe.

    Args:
        kind: what is counted.
        settings: window, grace.
        shard: number of the raw partition.
        snapshot: what the commit holds; a fresh ``Snapshot`` begins anew.
        producer: the name of this worker, for the headers.
    """

    kind: Kind[S]
    settings: WindowSettings
    shard: int
    snapshot: Snapshot
    producer: str = "worker"
    counts: Counts = field(default_factory=Counts)
    next_offset: int = 0
    open: dict[int, Window[S]] = field(default_factory=dict)
    unpublished_rows: int = 0
    _done: list[Window[S]] = field(default_factory=list)
    _sequence: int = 0

    def take(self, offset: int, interval: Interval, batch: pa.RecordBatch, append_ns: int) -> None:
        """Take one message in; one that was taken before changes nothing.

        Args:
            offset: its offset in the raw partition.
            interval: its headers.
            batch: its rows, as decoded.
            append_ns: when the broker appended it: the reference for clocks that are wrong.

        Raises:
            CorruptRecordError: ``append_ns`` is no time; nothing was taken.
        """
        if offset < self.next_offset:
            return
        before = self.snapshot
        again = offset < before.next_offset
        times, clamped = clamp(batch.column("time_ns").to_numpy(), append_ns)
        rows = self.kind.rows(interval, batch) if batch.num_rows else None
        if rows is not None:
            self._count(offset, rows, times, again=again)
        self.next_offset = offset + 1
        if again:
            return
        self.counts.messages += 1
        self.counts.rows += batch.num_rows
        self.counts.clamped_rows += clamped
        end_ns = clamp_one(interval.end_ns, append_ns)
        self._advance(before.after(offset, end_ns, self.settings.grace_ns))
        self._tidy()

    def skip(self, offset: int) -> None:
        """Pass a message that cannot be read: it counts nowhere and moves no watermark."""
        if offset >= self.next_offset:
            self.next_offset = offset + 1
            if offset >= self.snapshot.next_offset:
                self.counts.skipped += 1
                self._advance(self.snapshot.after(offset, BEFORE_ALL, self.settings.grace_ns))

    def _count(self, offset: int, rows: Rows[S], times: NDArray[np.int64], *, again: bool) -> None:
        window_ns = self.settings.window_ns
        start = starts(times, window_ns)
        low, high = int(start.min()), int(start.max())
        parts: list[tuple[int, Any]] = [(low, slice(None))]
        if low != high:
            order = np.argsort(start, kind="stable")
            distinct, edges = np.unique(start[order], return_index=True)
            parts = list(zip(distinct.tolist(), np.split(order, edges[1:]), strict=True))
        for start_ns, picked in parts:
            if start_ns + window_ns > self.snapshot.closed_ns:
                window = self.open.get(start_ns)
                if window is None:
                    window = self.open[start_ns] = Window(start_ns, offset, self.kind.state(), offset)
            elif again:
                continue
            else:
                window = Window(start_ns, offset, self.kind.state(), offset, late=1)
                self._done.append(window)
                self.counts.late_rows += len(times[picked])
            rows.add_to(window.state, picked)
            window.last_offset = offset
            self.unpublished_rows += len(times[picked])

    def _advance(self, after: Snapshot) -> None:
        self.snapshot = after
        for start_ns in [s for s in self.open if s + self.settings.window_ns <= after.closed_ns]:
            self._done.append(self.open.pop(start_ns))

    def _tidy(self) -> None:
        windows = [*self.open.values(), *self._done]
        states = [window.state for window in windows]
        for window, state in zip(windows, self.kind.tidy(states), strict=True):
            window.state = state

    def flush(self, *, partials: bool = True) -> Flush:
        """Return the rows that changed since the last flush, and the commit that their acknowledgement allows.

        Args:
            partials: publish open windows too; closed and late ones always are.
        """
        windows, self._done = self._done, []
        if partials:
            windows = [*windows, *self.open.values()]
            self.unpublished_rows = 0
        results = [self._result(window) for window in windows if window.state.dirty]
        # Before a re-read has reached the snapshot, the windows that it will open are not all known: hold the commit.
        return Flush(
            results, min((w.first_offset for w in self.open.values()), default=self.next_offset), self.snapshot
        )

    @property
    def caught_up(self) -> bool:
        """Return whether everything before the snapshot has been read again; before that, flush and commit nothing."""
        return self.next_offset >= self.snapshot.next_offset

    def dirty_rows(self) -> int:
        """Return how many rows of open windows a flush would publish."""
        return sum(window.state.dirty for window in self.open.values())

    def _result(self, window: Window[S]) -> tuple[str, Interval, pa.RecordBatch]:
        batch = self.kind.changed(
            window.state,
            {
                "window_start_ns": window.start_ns,
                "window_s": self.settings.window_s,
                "shard": self.shard,
                "first_offset": window.first_offset,
                "last_offset": window.last_offset,
                "late": window.late,
            },
        )
        self._sequence += 1
        interval = Interval(
            self.kind.collector, "", "", f"{self.producer}/{self.shard}", self._sequence,
            window.start_ns, window.start_ns + self.settings.window_ns, rows=batch.num_rows,
        )  # fmt: skip
        return self.kind.schema, interval, batch
