"""What a dead letter is: a record that did not keep the contract, as it was, with where it came from and why.

Key: ``topic:partition:offset`` of the original, its place. Value: the original's. Headers: ``topic, partition, offset,
reason, error, append_ms, key`` (the original's, if it had one) and the original's own as ``original.NAME``. A letter
that would be too large for its topic is cut: ``cut`` says how many bytes the value had, or that headers are missing.

Notes about a replay stand in the same topic under the same key: ``note`` is ``replaying`` (announced: ``to`` topic and
partition, ``from`` the offset at which its end was) or ``replayed`` (done: ``at`` the new place).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sinks.ledger import Record

Headers = Sequence[tuple[str, bytes | None]]

REPLAYED_FROM = "replayed.from"
"""Header of a replayed record: the place of its original."""
REPLAYING, REPLAYED = "replaying", "replayed"
_ORIGINAL = "original."
_MAX_ERROR = 500
_ROOM = 64 * 1024
"""What a letter's own headers and Kafka's framing may take."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``offset`` is its own; ``size`` the original value's, ``value`` may be cut or left out."""

    offset: int
    time_ms: int
    topic: str
    partition: int
    original_offset: int
    reason: str
    error: str
    key: bytes | None
    headers: Headers
    value: bytes | None
    size: int
    cut: str

    @property
    def place(self) -> str:
        """Return the place of the original, ``topic:partition:offset``."""
        return f"{self.topic}:{self.partition}:{self.original_offset}"


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of one replay: announced, or done when ``at`` is given."""

    place: str
    topic: str = ""
    partition: int = 0
    begin: int = 0
    at: str = ""


def bury(
    topic: str, partition: int, record: Record, reason: str, error: str, max_bytes: int
) -> tuple[bytes, bytes | None, list[tuple[str, bytes | None]]]:
    """Return (key, value, headers) of the letter for a record; together they fit ``max_bytes``."""
    value, key = record.value, getattr(record, "key", None)
    headers: list[tuple[str, bytes | None]] = [
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(record.offset).encode()),
        ("reason", reason.encode()),
        ("error", error[:_MAX_ERROR].encode("utf-8", "replace")),
        ("append_ms", str(record.timestamp).encode()),
    ]
    room = max_bytes - _ROOM
    cut = []
    own: list[tuple[str, bytes | None]] = [(_ORIGINAL + name, item) for name, item in record.headers]
    if key is not None:
        own.append(("key", key))
    for name, item in own:
        size = len(name.encode("utf-8", "surrogatepass")) + len(item or b"") + 16
        # Headers first: what is left of the value without them says less than they do.
        if size > room // 2:
            cut = ["headers are missing"]
            continue
        room -= size
        headers.append((name, item))
    if value is not None and len(value) > room:
        cut.insert(0, f"the value had {len(value)} bytes")
        headers.append(("size", str(len(value)).encode()))
        value = value[:room]
    if cut:
        headers.append(("cut", "; ".join(cut).encode()))
    return f"{topic}:{partition}:{record.offset}".encode(), value, headers


def read(record: Any) -> Letter | Note | None:  # noqa: ANN401 - aiokafka's record
    """Return what a record of the dead-letter topic is; None when it is nothing of ours. Never raises for its bytes."""
    given = {name: item for name, item in record.headers if not name.startswith(_ORIGINAL)}

    def text(name: str) -> str:
        return (given.get(name) or b"").decode("utf-8", "replace")

    try:
        if "note" in given:
            place = (record.key or b"").decode()
            if text("note") == REPLAYED:
                return Note(place, at=text("at"))
            return Note(place, text("to"), int(text("partition")), int(text("from")))
        return Letter(
            record.offset,
            record.timestamp,
            text("topic"),
            int(text("partition")),
            int(text("offset")),
            text("reason"),
            text("error"),
            given.get("key"),
            tuple((name.removeprefix(_ORIGINAL), item) for name, item in record.headers if name.startswith(_ORIGINAL)),
            record.value,
            int(text("size") or len(record.value or b"")),
            text("cut"),
        )
    except ValueError:
        return None


def announced(place: str, topic: str, partition: int, begin: int) -> tuple[bytes, Headers]:
    """Return (key, headers) of the note that a replay is about to be published."""
    return place.encode(), [
        ("note", REPLAYING.encode()),
        ("to", topic.encode()),
        ("partition", str(partition).encode()),
        ("from", str(begin).encode()),
    ]


def done(place: str, at: str) -> tuple[bytes, Headers]:
    """Return (key, headers) of the note that a replay has been published ``at`` a place."""
    return place.encode(), [("note", REPLAYED.encode()), ("at", at.encode())]


def again(letter: Letter) -> list[tuple[str, bytes | None]]:
    """Return the headers of a letter's record when it is published again: its own, and where it comes from."""
    kept = [(name, item) for name, item in letter.headers if name != REPLAYED_FROM]
    return [*kept, (REPLAYED_FROM, letter.place.encode())]


def is_replay_of(headers: Iterable[tuple[str, bytes | None]], place: str) -> bool:
    """Return whether a record with these headers was published by a replay of a place."""
    return any(name == REPLAYED_FROM and item == place.encode() for name, item in headers)
