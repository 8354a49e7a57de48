"""Reads the wire of a pprof profile into tables by machine code, which numba makes of the functions below.

It takes exactly what ``pprof_tables`` takes, in a tenth of its time. What it does not take, ``pprof_tables`` reads
again and says what is wrong. Every byte comes from outside: a position is compared with the end of its message before
its byte is read, a length before it is added, and numba checks every index once more. One walk counts, the next fills
an array of exactly that size; both take time by the number of bytes. Memory: the tables.

Only the push endpoint loads this module: numba and LLVM take some 100 MB. What was compiled is kept in numba's cache,
beside this file or in the user's home; where neither can be written, every start compiles for some seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from collectors.ingest.machine_code import Int, made_by, part
from collectors.scrapers import pprof_tables, wire
from collectors.scrapers.pprof_tables import MAX_SAMPLES, Tables

Numbers = NDArray[np.int64]
Walk = Callable[..., bool]

VARINT, FIXED64, LENGTH, FIXED32 = wire.VARINT, wire.FIXED64, wire.LENGTH, wire.FIXED32
# An argument, as the cache would keep what they were.
_BOUNDS = (wire.MAX_FIELDS, wire.MAX_STEPS, wire.MAX_WALKED, wire.MAX_PACKED)
# Kinds of messages are called by their field's number in the profile; their counts stand at these places.
_PROFILE, _TYPE, _SAMPLE, _MAPPING, _LOCATION, _FUNCTION, _STRING, _PERIOD_TYPE = 0, 1, 2, 3, 4, 5, 6, 11
_TIME, _DURATION, _PERIOD, _DEFAULT = 9, 10, 12, 14
# More places: a location's lines, location ids and values of all samples, a sample's depth.
_LINE, _ID, _VALUE, _DEPTH = 15, 17, 18, 19
# Bytes of the packed fields 1 and 2 of samples; from _WALKED on, fields of all messages of each kind, from _BYTES on,
# their bytes.
_PACKED, _WALKED, _BYTES, _PLACES = 20, 32, 48, 64
_SMALLEST = bytes([_TYPE << 3 | LENGTH, 0, _STRING << 3 | LENGTH, 0])
# Which numbers of which message are kept, and in which column of its kind's table: _COLUMN[kind, field].
_COLUMN = np.full((_LINE + 1, 8), -1)
for _kind, _fields in {
    _TYPE: (1, 2), _MAPPING: (1, 5, 2), _LOCATION: (1, 2), _FUNCTION: (1, 2, 4), _PERIOD_TYPE: (1, 2), _LINE: (1, 2),
}.items():  # fmt: skip
    _COLUMN[_kind, _fields] = range(len(_fields))
_WIDTH = {
    _TYPE: 2, _MAPPING: 3, _LOCATION: 2, _FUNCTION: 3, _STRING: 2, _PERIOD_TYPE: 2, _LINE: 3, _ID: 1, _VALUE: 1,
    _DEPTH: 1,
}  # fmt: skip


@part
def _varint(data: wire.Bytes, at: int, limit: int) -> tuple[Int, int]:
    """Return (the number at ``at``, the position behind it); -1 when it passes the limit or ten bytes."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < limit and shift < np.uint64(70):
        byte = np.uint64(data[np.uint64(at)])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return value, at
        shift += np.uint64(7)
    return value, -1


@part
def _field(data: wire.Bytes, at: Int, limit: int) -> tuple[Int, Int, Int, int, int]:
    """Return (field, wire type, number or length, first byte, the position behind it); -1 when it cannot be read."""
    tag, at = _varint(data, at, limit)
    kind, value, begin = np.int64(tag & np.uint64(7)), np.uint64(0), at
    if at < 0:
        pass
    elif kind in (VARINT, LENGTH):
        value, at = _varint(data, at, limit)
        if kind == LENGTH and at >= 0:
            begin = at
            at = begin + np.int64(value) if value <= np.uint64(limit - begin) else -1
    elif kind in (FIXED64, FIXED32):
        at += 8 if kind == FIXED64 else 4
        at = at if at <= limit else -1
    else:
        at = -1
    return np.int64(tag >> np.uint64(3)), kind, value, begin, at


@part
def _numbers(data: wire.Bytes, at: int, end: int, out: Numbers, place: int) -> int:
    """Write the numbers of these bytes, from ``place`` on; returns the place behind them, -1 when damaged."""
    while 0 <= at < end:
        value, at = _varint(data, at, end)
        if at >= 0:
            out[place] = np.int64(value)
            place += 1
    return place if at >= 0 else -1


def _walk(  # noqa: C901 - one loop over whatever message stands at a position
    data: wire.Bytes, bounds: tuple[int, int, int, int], kinds: int, counts: Numbers, room: Numbers, first: Numbers,
    out: Numbers, own: Numbers,
) -> bool:  # fmt: skip
    """Count what a profile holds, or write it; returns whether it is one, as far as this walk has looked.

    Args:
        data: the profile.
        bounds: of fields: the profile's, one message's, those of one kind together; of bytes of packed numbers.
        kinds: how many values each sample has; 0 while counting.
        counts: is given the counts, shape (_PLACES,).
        room: the counts of the walk that counted.
        first: where each kind's table begins in ``out``; its columns follow each other.
        out: all tables.
        own: is given the profile's own numbers, by field.
    """
    max_fields, max_steps, max_walked, max_packed = bounds
    counts[:] = 0
    kind, row, at, limit, steps = _PROFILE, 0, 0, len(data), 0
    outer_steps = location_steps = location_limit = ids = values = 0
    while True:
        if at == limit:
            if kind == _PROFILE:
                return True
            counts[_WALKED + kind] += steps
            if steps > max_steps or counts[_WALKED + kind] > max_walked:
                return False
            if kind == _SAMPLE and kinds:
                out[first[_DEPTH] + row] = counts[_ID] - ids
                if counts[_VALUE] - values != kinds:
                    return False
            if kind == _LINE:
                kind, row, limit, steps = _LOCATION, counts[_LOCATION] - 1, location_limit, location_steps
            else:
                kind, limit, steps = _PROFILE, len(data), outer_steps
            continue
        field, form, value, begin, at = _field(data, at, limit)
        if at < 0:
            return False
        steps += 1
        inner = _PROFILE
        if kind == _PROFILE:
            if steps > max_fields:
                return False
            if 0 < field <= _STRING or field == _PERIOD_TYPE:
                if form == VARINT:
                    return False
                # What comes in a fixed width is not there.
                if form == LENGTH:
                    inner = field
            elif field in (_TIME, _DURATION, _PERIOD, _DEFAULT):
                if form == LENGTH:
                    return False
                if form == VARINT:
                    own[field] = np.int64(value)
        elif kind == _SAMPLE:
            if field in (1, 2):
                if form == LENGTH:
                    counts[_PACKED + field] += at - begin
                elif form != VARINT:
                    return False
                what = _ID if field == 1 else _VALUE
                # A single number is read from its bytes as packed ones are.
                place = _numbers(data, begin, at, out, first[what] + counts[what])
                if place < 0 or counts[_PACKED + field] > max_packed:
                    return False
                counts[what] = place - first[what]
        elif kind == _LOCATION and field == 4:
            if form != LENGTH:
                return False
            inner = _LINE
        elif kinds and field < 8 and _COLUMN[kind, field] >= 0:
            out[first[kind] + _COLUMN[kind, field] * room[kind] + row] = np.int64(value)

        if inner == _PROFILE:
            continue
        row = counts[inner]
        counts[inner] += 1
        if inner == _STRING and kinds:
            out[first[_STRING] + row] = begin
            out[first[_STRING] + room[_STRING] + row] = at
        elif inner == _LINE and kinds:
            out[first[_LINE] + 2 * room[_LINE] + row] = counts[_LOCATION] - 1
            location_limit, location_steps = limit, steps
            kind, limit, steps, at = _LINE, at, 0, begin
        elif not kinds:
            # While counting, messages are passed over: what they hold has at least a byte for each number.
            counts[_BYTES + inner] += at - begin
        else:
            outer_steps, ids, values = steps, counts[_ID], counts[_VALUE]
            kind, limit, steps, at = inner, at, 0, begin


def compiled(*, cache: bool) -> Walk:
    """Return the machine code of the above.

    Args:
        cache: keep it for the next process, or take what an earlier one kept.

    Raises:
        Exception: of many kinds, whatever ails the compiler, or the cache: no place for it, no room, damaged files.
    """
    made: Walk = njit(nogil=True, boundscheck=True, cache=cache)(_walk)
    # It is compiled for the arguments of the first call.
    _tables(_SMALLEST, made)
    return made


@functools.cache
def _code() -> Walk:
    return made_by(compiled)


def tables(raw: bytes) -> Tables | None:
    """Return the tables of a profile, None where ``pprof_tables.read`` would refuse it. The first call compiles."""
    return _tables(raw, _code())


def _tables(raw: bytes, walk: Walk) -> Tables | None:
    data = np.frombuffer(raw, np.uint8)
    counts, first, own = np.zeros(_PLACES, np.int64), np.zeros(_PLACES, np.int64), np.zeros(_DEFAULT + 1, np.int64)
    if not walk(data, _BOUNDS, 0, counts, counts, first, own, own):
        return None
    room = counts.copy()
    room[_DEPTH] = room[_SAMPLE]
    kinds, samples = int(room[_TYPE]), int(room[_SAMPLE])
    if not kinds or not room[_STRING] or samples > MAX_SAMPLES:
        return None
    # Nothing takes more room than this; how much it took, the next walk counts.
    room[_ID] = room[_VALUE] = room[_BYTES + _SAMPLE]
    room[_LINE] = room[_BYTES + _LOCATION] // 2
    total = 0
    for kind, width in _WIDTH.items():
        first[kind] = total
        total += width * int(room[kind])
    out = np.zeros(total, np.int64)
    if not walk(data, _BOUNDS, kinds, counts, room, first, out, own):
        return None
    counts[_DEPTH] = samples

    def columns(kind: int) -> Numbers:
        begin, width, rows = int(first[kind]), _WIDTH[kind], int(room[kind])
        return out[begin : begin + width * rows].reshape(width, rows)[:, : counts[kind]]

    types, mappings, locations, lines = map(columns, (_TYPE, _MAPPING, _LOCATION, _LINE))
    functions, strings, period = map(columns, (_FUNCTION, _STRING, _PERIOD_TYPE))
    return Tables(
        type_name=types[0],
        type_unit=types[1],
        location=columns(_ID)[0].view(np.uint64),
        depth=columns(_DEPTH)[0],
        values=columns(_VALUE)[0].reshape(samples, kinds),
        location_id=locations[0].view(np.uint64),
        location_mapping=locations[1].view(np.uint64),
        line_owner=lines[2],
        line_function=lines[0].view(np.uint64),
        line_number=lines[1],
        function_id=functions[0].view(np.uint64),
        function_name=functions[1],
        function_file=functions[2],
        mapping_id=mappings[0].view(np.uint64),
        mapping_name=mappings[1],
        mapping_start=mappings[2],
        string_begin=strings[0],
        string_end=strings[1],
        time_ns=int(own[_TIME]),
        duration_ns=int(own[_DURATION]),
        period_type=int(period[0, -1]) if room[_PERIOD_TYPE] else 0,
        period_unit=int(period[1, -1]) if room[_PERIOD_TYPE] else 0,
        period=int(own[_PERIOD]),
        default=int(own[_DEFAULT]),
    )


def read(raw: bytes) -> Tables:
    """Return the tables of a profile, as ``pprof_tables.read``.

    Raises:
        CorruptRecordError: as there, in the same words.
    """
    found = tables(raw)
    return pprof_tables.read(raw) if found is None else found
