"""The files of a spool: records in segments, ``acked`` (how far the oldest segment is done), ``ledger.json`` (debts).

A record is ``length u32, crc32 u32`` and a body: ``meta length u32, meta (JSON), value``. Whatever stands in a file,
what is read back is a record that was written, or nothing.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

MAX_RECORD = 16 * 1024 * 1024
_MAX_META = 65536
_HEAD = struct.Struct("<II")
_META = struct.Struct("<I")
_ACKED = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message. ``events`` is what is lost with it: the events it stands for and those it reports lost."""

    topic: str
    key: bytes
    headers: tuple[tuple[str, bytes], ...]
    value: bytes
    collector: str
    events: int
    number: int = -1
    """Its number among the messages of its topic in this spool; the spool sets it."""


@dataclass(frozen=True, slots=True)
class Record:
    """A message as it was read back: its length in the file, and which debts its headers report (see ``Ledger``)."""

    message: Message
    length: int
    repays: int
    ledger: int


@dataclass(slots=True)
class Ledger:
    """What is owed: dropped events by collector. ``number`` grows at each write; ``dropped`` segments are void."""

    number: int = 0
    owed: dict[str, int] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()


def pack(message: Message, repays: int, ledger: int) -> bytes:
    """Return the bytes of one record."""
    meta = {
        "topic": message.topic,
        "key": message.key.decode(),
        "headers": [(name, value.decode()) for name, value in message.headers],
        "collector": message.collector,
        "events": message.events,
        "number": message.number,
        "repays": repays,
        "ledger": ledger,
    }
    text = json.dumps(meta, separators=(",", ":")).encode()
    body = _META.pack(len(text)) + text + message.value
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def parse(file: BinaryIO) -> Record | None:
    """Return the record at the file's position; None at the end or when it is damaged."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, crc = _HEAD.unpack(head)
    # A file that a machine's crash has filled with zeros has a matching checksum of nothing.
    if not _META.size < length <= MAX_RECORD + _MAX_META:
        return None
    body = file.read(length)
    if len(body) != length or zlib.crc32(body) != crc:
        return None
    (size,) = _META.unpack_from(body)
    try:
        meta = json.loads(body[_META.size : _META.size + size])
        message = Message(
            topic=meta["topic"],
            key=meta["key"].encode(),
            headers=tuple((name, value.encode()) for name, value in meta["headers"]),
            value=body[_META.size + size :],
            collector=meta["collector"],
            events=meta["events"],
            number=meta.get("number", -1),
        )
        return Record(message, _HEAD.size + length, int(meta["repays"]), int(meta["ledger"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_ledger(directory: Path) -> Ledger:
    """Return the ledger as last written; an empty one when there is none."""
    try:
        found = json.loads((directory / "ledger.json").read_text())
        owed = {str(name): int(events) for name, events in found["owed"].items()}
        return Ledger(int(found["number"]), owed, frozenset(int(number) for number in found["dropped"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Ledger()


def write_ledger(directory: Path, ledger: Ledger) -> None:
    """Replace the ledger in one step.

    Raises:
        OSError: the disk refuses.
    """
    partial = directory / "ledger.partial"
    text = json.dumps({"number": ledger.number, "owed": ledger.owed, "dropped": sorted(ledger.dropped)})
    partial.write_text(text)
    partial.replace(directory / "ledger.json")


def read_acked(directory: Path) -> tuple[int, int]:
    """Return (segment, offset in it up to which Kafka has everything); zeros when nothing was noted."""
    try:
        segment, offset = _ACKED.unpack((directory / "acked").read_bytes())
    except (OSError, struct.error):
        return 0, 0
    return segment, offset


def write_acked(directory: Path, segment: int, offset: int) -> None:
    """Note how far a segment is done.

    Raises:
        OSError: the disk refuses.
    """
    handle = os.open(directory / "acked", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, _ACKED.pack(segment, offset), 0)
    finally:
        os.close(handle)
