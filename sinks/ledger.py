"""Which offsets a batch holds, and what is written down about it in Kafka: the arithmetic of 'once', without I/O.

Before a batch is inserted, its range is committed as metadata beside the old offset; after the insert its end is
committed. Whoever finds such an intent reads exactly that range again and inserts it with the same token.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Record(Protocol):
    """What is used of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def intent_metadata(end: int) -> str:
    """Return the commit metadata that announces a batch from the committed offset up to ``end`` (exclusive)."""
    return json.dumps({"perfstream_intent_end": end})


def intent_end(offset: int, metadata: str | None) -> int | None:
    """Return the announced end of the batch that starts at ``offset``; None when nothing was announced."""
    try:
        end = json.loads(metadata or "{}")["perfstream_intent_end"]
    except (ValueError, KeyError, TypeError):
        return None
    return end if isinstance(end, int) and end > offset else None


@dataclass(slots=True)
class Batch:
    """Records of one partition from ``first`` to ``end`` (exclusive), and which of its tables are stored."""

    topic: str
    partition: int
    first: int
    end: int
    records: list[Record]
    announced: bool
    in_store: bool = False
    """Whether the store has the announcement, too."""
    dead_sent: bool = False
    stored: set[str] = field(default_factory=set)
    failures: int = 0
    retry_at: float = 0.0

    def token(self, table: str) -> str:
        """Return the deduplication token of this batch in a table."""
        return f"{self.topic}:{self.partition}:{self.first}-{self.end - 1}:{table}"


@dataclass(slots=True)
class Known:
    """The batches of a partition that were announced to the store, in the order of their offsets, without overlaps.

    ``first_ms`` and ``last_ms`` bound the append times of their records; ``finished`` says that all rows are there.
    """

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    first_ms: NDArray[np.int64]
    last_ms: NDArray[np.int64]
    finished: NDArray[np.bool_]

    @classmethod
    def nothing(cls) -> Known:
        """Return that nothing was announced."""
        none = np.empty(0, np.int64)
        return cls(none, none, none, none, np.empty(0, np.bool_))

    def holding(self, offset: int) -> int | None:
        """Return which batch holds an offset."""
        at = int(np.searchsorted(self.first, offset, side="right")) - 1
        return at if at >= 0 and offset < self.end[at] else None

    def next_first(self, offset: int) -> int | None:
        """Return where the first batch after an offset begins."""
        at = int(np.searchsorted(self.first, offset, side="right"))
        return int(self.first[at]) if at < len(self.first) else None

    def finished_until(self, at: int) -> int:
        """Return the end of the run of finished batches that starts with ``at``."""
        while at + 1 < len(self.first) and self.first[at + 1] == self.end[at] and self.finished[at + 1]:
            at += 1
        return int(self.end[at])


def _rows(record: Record) -> int:
    for key, value in record.headers:
        if key == "rows" and value is not None and value[:12].isdigit():
            return int(value[:12])
    return 1


class Partition:
    """The records of one partition that wait, and the batch in progress. Not thread-safe."""

    def __init__(self, topic: str, number: int, begin: int, intent: int | None = None) -> None:
        self.topic = topic
        self.number = number
        self.begin = begin
        """First offset that is in no finished batch."""
        self.intent = intent
        self.expected = begin
        self.batch: Batch | None = None
        self.bytes = 0
        self.rows = 0
        self.since = 0.0
        self.trimmed = 0
        """Offsets that retention removed before they were read."""
        self.known: Known | None = None
        """What the store was told of this partition; None: not asked yet."""
        self.retry_at = 0.0
        self.failures = 0
        self._sought = -1
        self._records: deque[Record] = deque()

    def add(self, records: Iterable[Record], now: float) -> int | None:
        """Take records in; returns an offset to seek to when there is a gap before them that nobody has checked.

        A gap is what retention removed, or a reader that was somewhere else a moment ago. Reading once more from the
        expected offset tells one from the other.
        """
        for record in records:
            if record.offset < self.expected:
                continue
            if record.offset > self.expected:
                if self._sought != self.expected:
                    self._sought = self.expected
                    return self.expected
                self.trimmed += record.offset - self.expected
            if not self._records:
                self.since = now
            self._records.append(record)
            self.expected = record.offset + 1
            self.bytes += len(record.value or b"")
            self.rows += _rows(record)
        return None

    def full(self, rows: int, size: int) -> bool:
        """Return whether reading should pause: enough waits, and an announced batch is complete."""
        if self.intent is not None and self.batch is None and self.expected < self.intent:
            return False
        return self.rows >= rows or self.bytes >= size

    def ready(self, now: float, linger_s: float, rows: int, size: int) -> bool:
        """Return whether a batch can be cut or tried again now."""
        if self.batch is not None:
            return now >= self.batch.retry_at
        if now < self.retry_at:
            return False
        if self.intent is not None:
            return self.expected >= self.intent
        return bool(self._records) and (now - self.since >= linger_s or self.rows >= rows or self.bytes >= size)

    def place(self) -> bool:
        """Pass what the store has; returns whether reading must go on at ``begin``, which has moved.

        At a batch that was announced to the store and left half done, ``begin`` and ``intent`` become its range.
        """
        if not self._records or self.known is None:
            return False
        record = self._records[0]
        at = self.known.holding(record.offset)
        if at is None:
            return False
        if not self.known.first_ms[at] <= record.timestamp <= self.known.last_ms[at]:
            self.known = Known.nothing()  # it speaks of a deleted topic of the same name
            return False
        if self.known.finished[at]:
            return self._move(self.known.finished_until(at), None)
        first, end = int(self.known.first[at]), int(self.known.end[at])
        if (self.begin, self.intent) == (first, end):
            return False
        return self._move(first, end)

    def _move(self, begin: int, intent: int | None) -> bool:
        self.begin = self.expected = begin
        self.intent = intent
        self._sought = -1
        self._records.clear()
        self.bytes = self.rows = 0
        return True

    def cut(self, rows: int, size: int, now: float) -> Batch:
        """Take the next batch: exactly the announced range, or up to a number of rows and bytes."""
        taken: list[Record] = []
        had_rows, had_bytes = 0, 0
        limit = self.known.next_first(self.begin) if self.known is not None else None
        while self._records:
            record = self._records[0]
            if self.intent is not None:
                if record.offset >= self.intent:
                    break
            elif (limit is not None and record.offset >= limit) or (taken and (had_rows >= rows or had_bytes >= size)):
                break
            taken.append(self._records.popleft())
            had_rows += _rows(record)
            had_bytes += len(record.value or b"")
        self.rows -= had_rows
        self.bytes -= had_bytes
        self.since = now
        end = self.intent if self.intent is not None else taken[-1].offset + 1
        self.batch = Batch(self.topic, self.number, self.begin, end, taken, announced=self.intent is not None)
        return self.batch

    def finish(self) -> None:
        """Forget the batch in progress: its end is committed."""
        if self.batch is not None:
            self.begin = self.batch.end
            self.batch = None
            self.intent = None
