"""The top and snapshot gadgets as collectors of the agent: their rows of each interval as events.

A row of ``top`` carries the start of the interval that it sums up, a row of ``snapshot`` the instant at which it was
taken, the end. At most ``MOST_TOP`` rows of an interval (the first by the gadget's own order) and ``MOST_SNAPSHOT``;
the others are one row ``(other)`` with their sums. An interval without rows is a message, too: the node lives.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from collectors.base import Batch
from collectors.bpf.kernel import RunStats
from collectors.table_rows import as_events, bounded, weights
from collectors.top.base import Top

MOST_TOP = 100
MOST_SNAPSHOT = 1000


class Snapshot(Protocol):
    """A gadget that says what there is now."""

    name: str
    columns: ClassVar[pa.Schema]
    sums: ClassVar[tuple[str, ...]]
    detail: ClassVar[tuple[str, ...]]

    @staticmethod
    def weight(rows: pa.RecordBatch) -> NDArray[np.float64]:
        """Return which rows are kept where not all are: the heaviest."""

    def take(self) -> pa.RecordBatch:
        """Return the rows."""


class PublishedTop:
    """A ``Top`` as a ``Collector``."""

    schema = "event"

    def __init__(self, gadget: Top, most: int = MOST_TOP) -> None:
        self._gadget, self._most = gadget, most
        self._before = 0.0

    @property
    def name(self) -> str:
        """The gadget's."""
        return self._gadget.name

    def start(self) -> None:
        """Load and attach, or take the first look.

        Raises:
            KernelError: it cannot run here.
        """
        self._gadget.start()
        self._before = time.monotonic()

    def collect(self, start_ns: int, end_ns: int) -> Batch:  # noqa: ARG002 - rates are of what really passed
        """Return what happened since the last call."""
        now = time.monotonic()
        rows, lost = self._gadget.collect(max(now - self._before, 1e-9)), self._gadget.lost()
        self._before = now
        events = sum(pc.sum(rows.column(name)).as_py() or 0 for name in self._gadget.counted)
        kept = bounded(rows, weights(rows, self._gadget.sort), self._most, self._gadget.sums)
        published = as_events(self.name, start_ns, kept, self._gadget.detail)
        return Batch(published, events if self._gadget.counted else rows.num_rows, lost)

    def stats(self) -> RunStats:
        """Return what the kernel side has cost since ``start``."""
        return self._gadget.stats()

    def memory_bytes(self) -> int:
        """Return the kernel memory that it holds."""
        return self._gadget.memory_bytes()

    def close(self) -> None:
        """Detach and free."""
        self._gadget.close()


class PublishedSnapshot:
    """A ``Snapshot`` as a ``Collector``: taken at each interval's end."""

    schema = "event"

    def __init__(self, gadget: Snapshot, most: int = MOST_SNAPSHOT) -> None:
        self._gadget, self._most = gadget, most

    @property
    def name(self) -> str:
        """The gadget's."""
        return self._gadget.name

    def start(self) -> None:
        """Nothing is loaded."""

    def collect(self, start_ns: int, end_ns: int) -> Batch:  # noqa: ARG002 - of a moment
        """Return what there is now."""
        rows = self._gadget.take()
        kept = bounded(rows, self._gadget.weight(rows), self._most, self._gadget.sums)
        return Batch(as_events(self.name, end_ns, kept, self._gadget.detail), rows.num_rows)

    def stats(self) -> RunStats:
        """Return nothing: it has no programs."""
        return RunStats()

    def close(self) -> None:
        """Hold nothing."""


def published(verb: str, gadget: Any) -> PublishedTop | PublishedSnapshot:  # noqa: ANN401 - as the verb says
    """Return a gadget as the agent runs it."""
    return PublishedTop(gadget) if verb == "top" else PublishedSnapshot(gadget)
