"""The dictionary of an OTLP profiles request: its strings, and its stacks as text.

Every table is referred to by place; place 0 is "none" and may be missing where nothing refers to another one. A frame
without a name is named after its module, ``[libc.so.6]``, as in pprof.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.scrapers import wire
from collectors.scrapers.distinct_stacks import distinct_stacks
from collectors.scrapers.pprof import MAX_FRAMES_TOTAL
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from streams.schema.stack_columns import StackColumns

Column = NDArray[np.int64]
_NONE = np.zeros(0, np.int64)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def messages(fields: wire.Fields, number: int) -> wire.Fields:
    """Return the length-delimited occurrences of one field.

    Raises:
        CorruptRecordError: one has another wire type.
    """
    found = fields.only(number)
    if np.any(found.wire != wire.LENGTH):
        raise CorruptRecordError(f"field {number} of an OTLP message has the wrong wire type")
    return found


def parts(raw: bytes, begin: int, end: int, fixed: dict[int, int] | None = None) -> dict[int, tuple[Column, Column]]:
    """Return {field: (begins, ends)} in ``raw`` of one message; a varint is (its value, -1)."""
    found = {}
    for number, given in wire.top_level(raw[begin:end], fixed).items():
        begins, ends = np.array(given[0], np.int64), np.array(given[1], np.int64)
        plain = ends < 0
        found[number] = np.where(plain, begins, begins + begin), np.where(plain, ends, ends + begin)
    for number in fixed or {}:
        assert fixed is not None
        fixed[number] += begin
    return found


def ranges(found: dict[int, tuple[Column, Column]], number: int) -> tuple[Column, Column]:
    """Return where the messages of one field begin and end.

    Raises:
        CorruptRecordError: the field holds numbers.
    """
    begins, ends = found.get(number, (_NONE, _NONE))
    if np.any(ends < 0):
        raise CorruptRecordError(f"field {number} of an OTLP message has the wrong wire type")
    return begins, ends


class Dictionary:
    """The tables that samples refer to."""

    def __init__(self, raw: bytes, view: wire.Bytes, begin: int, end: int) -> None:
        self._raw = raw
        self._view = view
        self._tables = parts(raw, begin, end)
        # Lists: strings are looked at one by one.
        self._string_at, self._string_to = (side.tolist() for side in ranges(self._tables, 5))

    def string(self, index: int) -> str:
        """Return one string.

        Raises:
            CorruptRecordError: it is not in the table.
        """
        if index == 0 and len(self._string_at) == 0:
            return ""
        if not 0 <= index < len(self._string_at):
            raise CorruptRecordError("an OTLP string index is outside of its table")
        return self._raw[self._string_at[index] : self._string_to[index]].decode("utf-8", "replace")

    def _table(self, number: int) -> tuple[wire.Fields, int]:
        """Return (the fields of a table's messages, how many messages there are)."""
        begin, end = ranges(self._tables, number)
        return wire.walk(self._view, begin, end), len(begin)

    def stacks(self, wanted: Column) -> tuple[StackColumns, Column]:
        """Return (distinct stacks, which of them each wanted stack is).

        Raises:
            CorruptRecordError: a place is outside of its table, or the stacks are too long.
        """
        begin, frame, frames = self._frames()
        fields, count = self._table(7)
        owner, place = wire.repeated(self._view, fields.only(1))
        _inside(wanted, count, "stack")
        _inside(place.view(np.int64), len(begin) - 1, "location")
        # Only the stacks that samples have are written; each has its locations one after the other.
        per_stack = np.bincount(owner, minlength=max(count, 1))
        first = np.cumsum(per_stack) - per_stack
        locations = _pieces(first[wanted], per_stack[wanted])
        at = place.view(np.int64)[locations] if len(place) else _NONE
        lengths = (begin[1:] - begin[:-1])[at] if len(at) else _NONE
        flat = frame[_pieces(begin[at], lengths)]
        stop = np.concatenate(([0], np.cumsum(lengths)))
        ends = np.cumsum(per_stack[wanted])
        depth = stop[ends] - stop[ends - per_stack[wanted]]
        # Leaf first in OTLP, root first in the contract.
        offsets = np.concatenate(([0], np.cumsum(depth)))
        flat = flat[np.repeat(offsets[:-1] + offsets[1:] - 1, depth) - np.arange(len(flat))]
        return distinct_stacks(flat, depth, frames)

    def _frames(self) -> tuple[Column, Column, pa.StringArray]:
        """Return (begin of each location's frames in ``frame``, frames as places in the texts, the texts)."""
        locations, total = self._table(2)
        lines_of = messages(locations, 3)
        lines = wire.walk(self._view, lines_of.begin, lines_of.end)
        count = len(lines_of.begin)
        functions, function_count = self._table(3)
        mappings, mapping_count = self._table(1)
        # A location without lines is one frame without a name.
        bare = np.flatnonzero(np.bincount(lines_of.owner, minlength=total) == 0)
        owner = np.concatenate((lines_of.owner, bare))
        function = np.concatenate((lines.scalar(1, count), np.zeros(len(bare), np.int64)))
        number = np.concatenate((lines.scalar(2, count), np.zeros(len(bare), np.int64)))
        name = _picked(functions.scalar(1, function_count), function, "function")
        file = _picked(functions.scalar(3, function_count), function, "function")
        module = _picked(mappings.scalar(4, mapping_count), locations.scalar(1, total)[owner], "mapping")
        key = np.stack((name, file, number, np.where(name == 0, module, 0)))
        distinct, frame = np.unique(key, axis=1, return_inverse=True)
        texts = self._texts(distinct)
        order = np.argsort(owner, kind="stable")
        begin = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=total))))
        return begin, frame.reshape(-1)[order], pa.array(texts, pa.string())

    def _texts(self, frames: Column) -> list[str]:
        """Return the frames (name, file, line, module), shape (4, n), as the contract writes them."""
        names, files, lines, modules = frames.tolist()
        strings = {at: self.string(at) for at in {*names, *files}}
        rows = zip(names, files, lines, modules, strict=True)
        # One look at all strings: those that must be mended are rare.
        if (
            min(lines, default=0) < 0
            or max(map(len, strings.values()), default=0) > stacks.MAX_FIELD
            or _CONTROL.search("".join(strings.values()))
        ):
            return [stacks.frame_text(strings[n] or self._module(m), strings[f], line) for n, f, line, m in rows]
        return [
            f"{strings[n]}\t{strings[f]}\t{line}"
            if strings[n]
            else stacks.frame_text(self._module(m), strings[f], line)
            for n, f, line, m in rows
        ]

    def _module(self, name: int) -> str:
        path = self.string(name)
        return f"[{path.rsplit('/', 1)[-1].strip('[]')}]" if path else ""


def _inside(index: Column, count: int, what: str) -> None:
    if len(index) and (index.min() < 0 or index.max() >= max(count, 1)):
        raise CorruptRecordError(f"an OTLP {what} index is outside of its table")
    if what == "location" and len(index) and count == 0:
        raise CorruptRecordError("an OTLP location index is outside of its table")


def _picked(column: Column, index: Column, what: str) -> Column:
    _inside(index, len(column), what)
    return column[index] if len(column) else np.zeros(len(index), np.int64)


def _pieces(begin: Column, length: Column) -> Column:
    """Return the places ``begin[i] ... begin[i] + length[i] - 1`` of all pieces, one after the other."""
    total = int(length.sum())
    if total > MAX_FRAMES_TOTAL:
        raise CorruptRecordError(f"the OTLP profiles' stacks have more than {MAX_FRAMES_TOTAL} frames")
    stops = np.cumsum(length)
    return np.arange(total) + np.repeat(begin - stops + length, length)
