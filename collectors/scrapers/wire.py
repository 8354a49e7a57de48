"""The protobuf wire format in columns: many messages of one kind are walked in lock-step, varints decoded in bulk.

Source: the encoding chapter of the Protocol Buffers documentation. Cost: about 40 ns a varint. Memory: a few integers
for each field, whose number is bounded here; the caller bounds the bytes.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.schema.errors import CorruptRecordError

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_STEPS = 20_000
MAX_FIELDS = 1_000_000
MAX_WALKED = 2_000_000
MAX_PACKED = 8 * 1024 * 1024
_OTHER = 64
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of many messages, in the order of their messages and within one in its own; all of one length.

    ``owner`` is the message's number, ``number`` the field's. ``value`` holds varints; ``begin`` and ``end`` enclose
    the bytes of length-delimited fields (``wire == LENGTH``).
    """

    owner: Positions
    number: Positions
    wire: Positions
    value: NDArray[np.uint64]
    begin: Positions
    end: Positions

    def only(self, number: int) -> Fields:
        """Return the fields of one number."""
        at = np.flatnonzero(self.number == number)
        return Fields(self.owner[at], self.number[at], self.wire[at], self.value[at], self.begin[at], self.end[at])

    def scalar(self, number: int, messages: int) -> NDArray[np.int64]:
        """Return the last varint of a field for each message, 0 where it is absent; shape (messages,)."""
        out = np.zeros(messages, np.int64)
        found = self.only(number)
        out[found.owner] = found.value.view(np.int64)
        return out


def walk(data: Bytes, begin: Positions, end: Positions) -> Fields:
    """Return the fields of the messages ``data[begin[i]:end[i]]``.

    Raises:
        CorruptRecordError: a field runs past its message, has a wire type that does not exist, or is one of too many.
    """
    owners, numbers, wires, values, begins, ends = [], [], [], [], [], []
    active = np.flatnonzero(begin < end)
    at = begin[active].copy()
    limit = end[active]
    steps = walked = 0
    while len(active):
        steps, walked = steps + 1, walked + len(active)
        if steps > MAX_STEPS or walked > MAX_WALKED:
            raise CorruptRecordError("the profile's messages have too many fields")
        tag, at = varint_at(data, at, limit)
        number, wire = (tag >> np.uint64(3)).astype(np.int64), (tag & np.uint64(7)).astype(np.int64)
        first = at
        value = np.zeros(len(at), np.uint64)
        is_number, is_bytes = wire == VARINT, wire == LENGTH
        if not np.all(is_number | is_bytes | (wire == FIXED64) | (wire == FIXED32)):
            raise CorruptRecordError("unknown wire type")
        reads = is_number | is_bytes
        if reads.all():
            value, at = varint_at(data, at, limit)
        else:
            at = at.copy()
            value[reads], at[reads] = varint_at(data, at[reads], limit[reads])
            at += np.where(wire == FIXED64, 8, np.where(wire == FIXED32, 4, 0))
        # The length is bounded before it is added, so that the sum cannot wrap.
        length = np.where(is_bytes, np.minimum(value, np.uint64(len(data) + 1)), np.uint64(0)).astype(np.int64)
        first = np.where(is_bytes, at, first)
        at = at + length
        if np.any(at > limit):
            raise CorruptRecordError("a field runs past the end of its message")
        owners.append(active)
        numbers.append(number)
        wires.append(wire)
        values.append(value)
        begins.append(first)
        ends.append(at)
        more = at < limit
        if not more.all():
            active, at, limit = active[more], at[more], limit[more]
    if not owners:
        none = np.zeros(0, np.int64)
        return Fields(none, none, none, np.zeros(0, np.uint64), none, none)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    columns = [np.concatenate(column)[order] for column in (numbers, wires, values, begins, ends)]
    return Fields(owner[order], *columns)  # type: ignore[arg-type]


def varint_at(data: Bytes, at: Positions, limit: Positions) -> tuple[NDArray[np.uint64], Positions]:
    """Return (the varints that begin at each position, the positions after them).

    Raises:
        CorruptRecordError: one is longer than ten bytes or passes ``limit``.
    """
    value = np.zeros(len(at), np.uint64)
    after = at.copy()
    open_ = np.arange(len(at))
    for shift in range(0, 70, 7):
        here = after[open_]
        if np.any(here >= limit[open_]):
            raise CorruptRecordError("the data end inside a number")
        byte = data[here]
        value[open_] |= (byte & np.uint8(0x7F)).astype(np.uint64) << np.uint64(shift)
        after[open_] += 1
        open_ = open_[byte >= 0x80]
        if len(open_) == 0:
            return value, after
    raise CorruptRecordError("a number is longer than ten bytes")


def repeated(data: Bytes, fields: Fields) -> tuple[Positions, NDArray[np.uint64]]:
    """Return (owner, value) of every element of a repeated varint field, packed or not, in order.

    Args:
        data: what ``walk`` was given.
        fields: the occurrences of one field (``Fields.only``).

    Raises:
        CorruptRecordError: a packed field ends inside a number, is too long, or the field holds no numbers.
    """
    packed = fields.wire == LENGTH
    if np.any(~packed & (fields.wire != VARINT)):
        raise CorruptRecordError("a repeated number has the wrong wire type")
    begin, end = fields.begin[packed], fields.end[packed]
    lengths = end - begin
    total = int(lengths.sum())
    if total > MAX_PACKED:
        raise CorruptRecordError(f"packed fields hold more than {MAX_PACKED >> 20} MB")
    stops = np.cumsum(lengths)
    where = np.arange(total) + np.repeat(begin - stops + lengths, lengths)
    piece = data[where]
    last = piece < 0x80
    if total and not np.all(last[stops[lengths > 0] - 1]):
        raise CorruptRecordError("a packed field ends inside a number")
    stop = np.flatnonzero(last)
    start = np.concatenate(([0], stop[:-1] + 1)) if len(stop) else stop
    within = np.arange(total) - np.repeat(start, stop - start + 1)
    if total and int(within.max()) > 9:
        raise CorruptRecordError("a number is longer than ten bytes")
    bits = (piece & np.uint8(0x7F)).astype(np.uint64) << (within * 7).astype(np.uint64)
    numbers = np.add.reduceat(bits, start) if len(stop) else np.zeros(0, np.uint64)
    # Which occurrence each number belongs to, then the unpacked ones are merged in at their places.
    occurrence = np.flatnonzero(packed)[np.searchsorted(stops, stop, side="right")]
    single = np.flatnonzero(~packed)
    if len(single) == 0:
        return fields.owner[occurrence], numbers
    all_at = np.concatenate((occurrence, single))
    order = np.argsort(all_at, kind="stable")
    return fields.owner[all_at[order]], np.concatenate((numbers, fields.value[single]))[order]


def top_level(data: bytes, fixed: dict[int, int] | None = None) -> dict[int, tuple[array[int], array[int]]]:
    """Return {field number: (begins, ends)} of one message's length-delimited fields, and varints as empty ranges.

    A varint field is given as (its value, signed, -1); fields from number 64 on, which no profile has, are one. One
    step for each field: they cannot be found in parallel.

    Args:
        data: the message.
        fixed: is given {field number: where the last one's bytes begin} of the fields of fixed width.

    Raises:
        CorruptRecordError: as ``walk``, or there are more than ``MAX_FIELDS``.
    """
    found: dict[int, tuple[array[int], array[int]]] = {}
    at, size = 0, len(data)
    short: list[int] = []
    try:
        for _ in range(MAX_FIELDS):
            if at >= size:
                break
            # Nearly every field has one byte of tag and one or two of length: its place is noted, no more.
            if data[at] & 0x87 == LENGTH:
                length = data[at + 1]
                if length < 0x80:
                    short.append(at)
                    at += length + 2
                    continue
                more = data[at + 2]
                if more < 0x80:
                    short.append(at)
                    at += (length & 0x7F | more << 7) + 3
                    continue
            at = _field(data, at, found, fixed)
        else:
            if at < size:
                raise CorruptRecordError(f"the profile has more than {MAX_FIELDS} fields")
    except IndexError:
        at = size + 1
    if at != size:
        raise CorruptRecordError("the data end inside a field")
    if short:
        _add(found, np.frombuffer(data, np.uint8), np.array(short, np.int64))
    # A field that only came in a fixed width is not there.
    return {number: ranges for number, ranges in found.items() if len(ranges[0])}


def _field(data: bytes, at: int, found: dict[int, tuple[array[int], array[int]]], fixed: dict[int, int] | None) -> int:
    """Add the field at ``at``, whatever it is; returns where the next one begins, which may lie behind the data."""
    tag, at = _one(data, at)
    wire = tag & 7
    begins, ends = found.setdefault(min(tag >> 3, _OTHER), (array("q"), array("q")))
    if wire == LENGTH:
        length, at = _one(data, at)
        if length > len(data) - at:
            return len(data) + 1
        begins.append(at)
        at += length
        ends.append(at)
    elif wire == VARINT:
        value, at = _one(data, at)
        begins.append(value - (1 << 64) if value >> 63 else value)
        ends.append(-1)
    elif wire in (FIXED64, FIXED32):
        if fixed is not None:
            fixed[tag >> 3] = at
        at += 8 if wire == FIXED64 else 4
    else:
        raise CorruptRecordError("unknown wire type")
    return at


def _add(found: dict[int, tuple[array[int], array[int]]], data: Bytes, at: Positions) -> None:
    """Add the length-delimited fields whose one-byte tags stand at ``at`` and whose lengths take one or two bytes."""
    first = data[at + 1].astype(np.int64)
    # The byte after a one-byte length may lie behind the data.
    second = data[np.minimum(at + 2, len(data) - 1)].astype(np.int64)
    long = first >= 0x80
    begin = at + 2 + long
    end = begin + np.where(long, first & 0x7F | second << 7, first)
    numbers = data[at] >> 3
    for number in np.flatnonzero(np.bincount(numbers)).tolist():
        chosen = numbers == number
        begins, ends = begin[chosen], end[chosen]
        others = found.get(number)
        if others is not None and len(others[0]):
            # Varints of the same field have no place; no field has both.
            begins, ends = np.concatenate((others[0], begins)), np.concatenate((others[1], ends))
            order = np.argsort(begins, kind="stable")
            begins, ends = begins[order], ends[order]
        found[number] = array("q", begins.tobytes()), array("q", ends.tobytes())


def _one(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, at
        shift += 7
        if shift > 63:
            raise CorruptRecordError("a number is longer than ten bytes")
