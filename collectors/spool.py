"""A bounded queue of messages on disk: segment files, a checksum for each record, first in, first out.

Every message is written here before it is sent and leaves only when Kafka has acknowledged it, so a killed agent loses
nothing that it has written. There is no fsync: records survive the death of the process, not that of the machine
(what the page cache had not written is then cut off at the first bad checksum, and not counted). Beyond ``bound`` the
oldest segment is dropped, and the events in it are owed to their collectors: the next message of each reports them.

The files (see ``spool_files``) are written such that a crash between two writes neither counts twice nor forgets (see
``Spool.append``). Memory: one small entry for each message.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from collectors import spool_files as files
from collectors.spool_files import Ledger, Message
from runtime.log import Once
from streams.schema.errors import SettingsError

_LOG = logging.getLogger(__name__)
MEMORY_BOUND = 16 * 1024 * 1024
_FULL = "the spool is full: the oldest messages are dropped"
_NO_MEMORY = "the disk refuses messages and there are too many for memory: the oldest are dropped"


@dataclass(slots=True, eq=False)
class Entry:
    """A message in the spool. ``message`` is set when the disk refused it and it lives in memory only.

    ``doubtful``: it may have been sent before; nobody saw the acknowledgement. It is never dropped: it might be both
    stored and counted as lost.
    """

    segment: int
    offset: int
    length: int
    collector: str
    events: int
    in_flight: bool = False
    message: Message | None = None
    doubtful: bool = False


@dataclass(slots=True)
class _Segment:
    number: int
    size: int = 0
    waiting: int = 0
    in_flight: int = 0


@dataclass(slots=True)
class Loads:
    """What the spool holds and has done since it was opened, for metrics."""

    messages: int = 0
    bytes: int = 0
    dropped_messages: int = 0
    dropped_events: int = 0
    corrupt_records: int = 0
    recovered_messages: int = 0
    owed: dict[str, int] = field(default_factory=dict)


class Spool:
    """The queue. Thread-safe; one process for each directory.

    Args:
        directory: made when missing.
        bound: bytes on disk, at least 64 KiB; a sixteenth of it is one segment.

    Raises:
        SettingsError: the directory cannot be used, or another agent uses it.
    """

    def __init__(self, directory: Path, bound: int = 256 * 1024 * 1024) -> None:
        self.directory = directory
        self._bound = max(bound, 64 * 1024)
        self._segment_bytes = max(self._bound // 16, 4096)
        self._lock = threading.Lock()
        self._once = Once(_LOG)
        self._entries: deque[Entry] = deque()
        self._segments: dict[int, _Segment] = {}
        self._writer: BinaryIO | None = None
        self._in_memory = 0
        self._loads = Loads()
        self._ledger = Ledger()
        self._next_number = 1
        self._numbers: dict[str, int] = {}
        self._refused = ""
        self._ledger_waits = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._guard = (directory / "lock").open("wb")
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._guard.close()
            raise SettingsError(f"spool {directory} is in use by another agent; set another directory") from error
        except OSError as error:
            raise SettingsError(f"spool {directory}: {error.strerror}; set PERFSTREAM_SPOOL_DIRECTORY") from error
        self._recover()

    def owed(self, collector: str) -> int:
        """Return how many dropped events the next message of a collector must report as lost."""
        with self._lock:
            return self._ledger.owed.get(collector, 0)

    def append(self, message: Message, repays: int = 0) -> None:
        """Add a message; drops the oldest segments when there is no room. Never raises, never waits for Kafka.

        Args:
            message: what to send.
            repays: how many of the events owed to its collector the message's headers already report as lost.

        The record that repays names the ledger's number, and the ledger is rewritten after it: a crash in between is
        recognised by that number. A drop writes the ledger, with the segment's number, before it removes the file.
        """
        with self._lock:
            message = replace(message, number=self._numbers.get(message.topic, 0))
            record = files.pack(message, repays, self._ledger.number)
            before = self._ledger.number
            # A few bytes more: making room may write the ledger, and the record must name the one it stands beside.
            if not self._make_room(len(record) + 8):
                self._owe(message.collector, message.events - repays, _FULL)
                self._write_ledger()
                return
            if self._ledger.number != before:
                record = files.pack(message, repays, self._ledger.number)
            self._numbers[message.topic] = message.number + 1
            try:
                self._write(record, message)
                self._refused = ""
            except OSError as error:
                self._refused = error.strerror or str(error)
                self._once.warning("spool", f"cannot write to the spool: {error}; keeping messages in memory")
                self._abandon_segment()
                self._keep_in_memory(message)
            if repays:
                self._repay(message.collector, repays)
            if repays or self._ledger_waits:
                self._write_ledger()

    def take(self, messages: int, most_bytes: int) -> list[tuple[Entry, Message]]:
        """Return the oldest waiting messages, at least one when there is any; each is in flight until ``ack``."""
        taken: list[tuple[Entry, Message]] = []
        size = 0
        with self._lock:
            for entry in list(self._entries):
                if len(taken) == messages or (taken and size + entry.length > most_bytes):
                    break
                if entry.in_flight:
                    continue
                message = entry.message or self._read(entry)
                if message is None:
                    self._loads.corrupt_records += 1
                    self._owe(entry.collector, entry.events, "a message in the spool cannot be read back")
                    self._write_ledger()
                    self._forget(entry)
                    continue
                entry.in_flight = True
                if entry.message is None:
                    self._segments[entry.segment].in_flight += 1
                size += entry.length
                taken.append((entry, message))
        return taken

    def ack(self, entry: Entry) -> None:
        """Remove a message that Kafka has acknowledged. Messages of one segment are acknowledged in their order."""
        with self._lock:
            if entry.message is None:
                self._segments[entry.segment].in_flight -= 1
            self._forget(entry)

    def refuse(self, entry: Entry) -> None:
        """Remove a message that Kafka will never take, and owe its events."""
        with self._lock:
            self._owe(entry.collector, entry.events, "Kafka refuses a message")
            if entry.message is None:
                self._segments[entry.segment].in_flight -= 1
            self._write_ledger()
            self._forget(entry)

    def release(self, entry: Entry, *, doubtful: bool = True) -> None:
        """Put a message that was in flight back to waiting in its old place; ``doubtful``: it may have arrived."""
        with self._lock:
            entry.in_flight = False
            entry.doubtful = doubtful
            if entry.message is None:
                self._segments[entry.segment].in_flight -= 1

    @property
    def trouble(self) -> str:
        """Why the disk took no message the last time, "" when it did."""
        with self._lock:
            if not self._refused:
                return ""
            waiting = sum(entry.message is not None for entry in self._entries)
            return f"cannot write to the spool: {self._refused}; {waiting} messages wait in memory"

    def loads(self) -> Loads:
        """Return counts for metrics."""
        with self._lock:
            loads = self._loads
            return Loads(
                len(self._entries), self._disk_bytes() + self._in_memory, loads.dropped_messages, loads.dropped_events,
                loads.corrupt_records, loads.recovered_messages, dict(self._ledger.owed),
            )  # fmt: skip

    def close(self) -> None:
        """Close the files; what waits stays on disk for the next start, what was in memory only is owed."""
        with self._lock:
            self._close_writer()
            if self._in_memory:
                for entry in self._entries:
                    if entry.message is not None:
                        self._owe(entry.collector, entry.events, "the agent ends while the disk refuses messages")
            if self._in_memory or self._ledger_waits:
                self._write_ledger()
            self._guard.close()

    def _path(self, segment: int) -> Path:
        return self.directory / f"{segment:012d}.seg"

    def _disk_bytes(self) -> int:
        return sum(segment.size for segment in self._segments.values())

    def _write(self, record: bytes, message: Message) -> None:
        current = next(reversed(self._segments.values()), None)
        if self._writer is None or current is None or current.size + len(record) > self._segment_bytes:
            self._close_writer()
            # A number is never used twice: ``acked`` and the ledger name segments by it.
            number = self._next_number
            self._next_number += 1
            self._writer = self._path(number).open("xb", buffering=0)
            current = self._segments[number] = _Segment(number)
        written = self._writer.write(record)
        if written != len(record):
            # A short write is a full disk; the half record is cut off so that the next one starts clean.
            self._writer.truncate(current.size)
            raise OSError(28, "no space left for a whole record")
        self._entries.append(Entry(current.number, current.size, len(record), message.collector, message.events))
        current.size += len(record)
        current.waiting += 1

    def _keep_in_memory(self, message: Message) -> None:
        size = len(message.value)
        while self._in_memory + size > MEMORY_BOUND:
            oldest = next((e for e in self._entries if e.message is not None and not (e.in_flight or e.doubtful)), None)
            if oldest is None:
                self._owe(message.collector, message.events, _NO_MEMORY)
                return
            self._owe(oldest.collector, oldest.events, _NO_MEMORY)
            self._forget(oldest)
        self._in_memory += size
        self._entries.append(Entry(0, 0, size, message.collector, message.events, message=message))

    def _read(self, entry: Entry) -> Message | None:
        try:
            with self._path(entry.segment).open("rb") as file:
                file.seek(entry.offset)
                record = files.parse(file)
        except OSError:
            return None
        return record.message if record else None

    def _forget(self, entry: Entry) -> None:
        self._entries.remove(entry)
        if entry.message is not None:
            self._in_memory -= entry.length
            return
        segment = self._segments[entry.segment]
        segment.waiting -= 1
        if segment.waiting == 0:
            current = next(reversed(self._segments))
            if current == segment.number:
                self._close_writer()
            self._remove(segment.number)
        else:
            # Up to the first that is still here: one behind it may have been given up before its turn.
            self._write_acked(next(e for e in self._entries if e.message is None))

    def _make_room(self, size: int) -> bool:
        while self._disk_bytes() + size > self._bound:
            # Only the oldest is ever sent without an answer.
            doubtful = self._entries[0].segment if self._entries and self._entries[0].doubtful else -1
            victim = next((s for s in self._segments.values() if s.in_flight == 0 and s.number != doubtful), None)
            if victim is None:
                return False
            if victim.number == next(reversed(self._segments)):
                self._close_writer()
            for entry in [e for e in self._entries if e.segment == victim.number and e.message is None]:
                self._owe(entry.collector, entry.events, _FULL)
                self._entries.remove(entry)
            self._write_ledger(frozenset((victim.number,)))
            self._remove(victim.number)
        return True

    def _remove(self, number: int) -> None:
        self._segments.pop(number, None)
        try:
            self._path(number).unlink(missing_ok=True)
        except OSError as error:
            self._once.warning("remove", f"cannot remove a file of the spool: {error}; a restart sends it again")

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _abandon_segment(self) -> None:
        """Write no more to the newest segment, and leave no empty file of it behind."""
        self._close_writer()
        current = next(reversed(self._segments.values()), None)
        if current is not None and current.waiting == 0:
            self._remove(current.number)

    def _owe(self, collector: str, events: int, why: str) -> None:
        owed = self._ledger.owed
        owed[collector] = owed.get(collector, 0) + events
        self._ledger_waits = True
        self._loads.dropped_messages += 1
        self._loads.dropped_events += events
        self._once.warning(why, f"{why}; its events are counted as lost", collector=collector)

    def _repay(self, collector: str, events: int) -> None:
        left = self._ledger.owed.get(collector, 0) - events
        if left > 0:
            self._ledger.owed[collector] = left
        else:
            self._ledger.owed.pop(collector, None)

    def _write_ledger(self, dropped: frozenset[int] = frozenset()) -> None:
        self._ledger.number += 1
        self._ledger.dropped = dropped
        try:
            files.write_ledger(self.directory, self._ledger)
            self._ledger_waits = False
        except OSError as error:
            self._ledger_waits = True  # until there is room
            self._once.warning("ledger", f"cannot write the spool's ledger: {error}")

    def _write_acked(self, first: Entry) -> None:
        try:
            files.write_acked(self.directory, first.segment, first.offset)
        except OSError as error:
            self._once.warning("acked", f"cannot note what Kafka has taken: {error}; a restart sends it again")

    def _recover(self) -> None:
        self._ledger = files.read_ledger(self.directory)
        dropped = self._ledger.dropped
        acked_segment, acked_offset = files.read_acked(self.directory)
        numbers = sorted(int(path.stem) for path in self.directory.glob("*.seg") if path.stem.isdigit())
        self._next_number = max([*numbers, acked_segment, *dropped, 0]) + 1
        repaid = False
        for number in numbers:
            if number in dropped:
                self._path(number).unlink(missing_ok=True)
                continue
            start = acked_offset if number == acked_segment else 0
            repaid |= self._recover_segment(number, start)
        self._loads.recovered_messages = len(self._entries)
        if self._entries:
            self._entries[0].doubtful = True
        if repaid:
            self._write_ledger()
        if self._entries:
            _LOG.info("%d messages wait in the spool from before", len(self._entries))

    def _recover_segment(self, number: int, start: int) -> bool:
        segment = self._segments[number] = _Segment(number)
        repaid = False
        with self._path(number).open("rb") as file:
            file.seek(start)
            while (record := files.parse(file)) is not None:
                message, offset = record.message, file.tell() - record.length
                self._entries.append(Entry(number, offset, record.length, message.collector, message.events))
                segment.waiting += 1
                self._numbers[message.topic] = message.number + 1
                # The ledger that is there was written before this record, so it still has what the record repays.
                if record.repays and record.ledger >= self._ledger.number:
                    self._repay(message.collector, record.repays)
                    repaid = True
            end = file.seek(0, os.SEEK_END)
            good = self._entries[-1].offset + self._entries[-1].length if segment.waiting else start
            if end > good:
                self._loads.corrupt_records += 1
                _LOG.warning("spool segment %d ends in %d unreadable bytes; ignored", number, end - good)
        segment.size = end
        if segment.waiting == 0:
            self._remove(number)
        return repaid
