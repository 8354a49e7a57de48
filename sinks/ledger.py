"""Which offsets a batch holds, and what is written down about it in Kafka: the arithmetic of 'once', without I/O.

Before a batch is inserted, its range is committed as metadata beside the old offset; after the insert its end is
committed. Whoever finds such an intent reads exactly that range again and inserts it with the same token.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


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
    dead_sent: bool = False
    stored: set[str] = field(default_factory=set)
    failures: int = 0
    retry_at: float = 0.0

    def token(self, table: str) -> str:
        """Return the deduplication token of this batch in a table."""
        return f"{self.topic}:{self.partition}:{self.first}-{self.end - 1}:{table}"


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
        if self.intent is not None:
            return self.expected >= self.intent
        return bool(self._records) and (now - self.since >= linger_s or self.rows >= rows or self.bytes >= size)

    def cut(self, rows: int, size: int, now: float) -> Batch:
        """Take the next batch: exactly the announced range, or up to a number of rows and bytes."""
        taken: list[Record] = []
        had_rows, had_bytes = 0, 0
        while self._records:
            record = self._records[0]
            if self.intent is not None:
                if record.offset >= self.intent:
                    break
            elif taken and (had_rows >= rows or had_bytes >= size):
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
