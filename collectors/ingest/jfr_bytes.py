"""The numbers and texts of Java Flight Recorder files: bulk readers for columns, a cursor for what is read once.

Source: jdk.jfr.internal.consumer (OpenJDK) for the encoding: integers are LEB128 of at most nine bytes, the ninth
whole; a text begins with a byte that says how it is written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.schema.errors import CorruptRecordError

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

LONGEST_NUMBER = 9
_NULL, _EMPTY, _CONSTANT, _UTF8, _CHARS, _LATIN1 = range(6)


class Cursor:
    """Reads one number or text after the other from ``data[at:end]``."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data = data
        self.at = at
        self.end = min(end, len(data))

    def skip(self, count: int) -> None:
        """Pass some bytes.

        Raises:
            CorruptRecordError: there are not as many.
        """
        if not 0 <= count <= self.end - self.at:
            raise CorruptRecordError("the recording is cut short, or a length in it is wrong")
        self.at += count

    def byte(self) -> int:
        """Return one byte."""
        self.skip(1)
        return self._data[self.at - 1]

    def number(self) -> int:
        """Return an integer, unsigned."""
        value = shift = 0
        while True:
            byte = self.byte()
            if shift == 56:
                return value | byte << 56
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def signed(self) -> int:
        """Return an integer of 64 bits with its sign."""
        value = self.number()
        return value - (1 << 64) if value >> 63 else value

    def count(self) -> int:
        """Return how many elements follow; each has at least one byte.

        Raises:
            CorruptRecordError: there are not as many bytes.
        """
        value = self.number()
        if value > self.end - self.at:
            raise CorruptRecordError("the recording is cut short, or a count in it is wrong")
        return value

    def text(self) -> bytes | int:
        """Return a text in UTF-8, or the number of a text in the constant pool.

        Raises:
            CorruptRecordError: cut short, or written in an unknown way.
        """
        how = self.byte()
        if how in (_NULL, _EMPTY):
            return b""
        if how == _CONSTANT:
            return self.number()
        if how == _CHARS:
            units = [self.number() & 0xFFFF for _ in range(self.count())]
            return np.array(units, "<u2").tobytes().decode("utf-16-le", "replace").encode()
        if how not in (_UTF8, _LATIN1):
            raise CorruptRecordError("a text of the recording is written in an unknown way")
        length = self.count()
        begin = self.at
        self.skip(length)
        found = self._data[begin : self.at]
        return found if how == _UTF8 else found.decode("latin-1").encode()


def numbers_at(data: Bytes, at: Positions, limit: Positions) -> tuple[NDArray[np.int64], Positions]:
    """Return (the integers that begin at each position, the positions after them).

    Raises:
        CorruptRecordError: one passes its ``limit``.
    """
    value = np.zeros(len(at), np.uint64)
    after = at.copy()
    open_ = np.arange(len(at))
    for shift in range(0, 63, 7):
        here = after[open_]
        if np.any(here >= limit[open_]):
            raise CorruptRecordError("an event of the recording ends inside a number")
        byte = data[here]
        bits = byte if shift == 56 else byte & np.uint8(0x7F)
        value[open_] |= bits.astype(np.uint64) << np.uint64(shift)
        after[open_] += 1
        open_ = open_[byte >= 0x80]
        if len(open_) == 0:
            break
    return value.view(np.int64), after


def numbers(piece: Bytes) -> tuple[NDArray[np.int64], Positions]:
    """Return (the integers that stand one after the other in ``piece``, the positions after each).

    What is left at the end without being a whole number is not read.
    """
    last = piece < 0x80
    if len(piece) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    stops = np.concatenate(([-1], np.flatnonzero(last), [len(piece)]))
    # The ninth byte ends a number whatever its first bit is; such numbers are rare.
    for gap in np.flatnonzero(np.diff(stops) > LONGEST_NUMBER).tolist():
        last[stops[gap] + LONGEST_NUMBER : stops[gap + 1] : LONGEST_NUMBER] = True
    stop = np.flatnonzero(last)
    if len(stop) == 0:
        return np.zeros(0, np.int64), stop
    start = np.concatenate(([0], stop[:-1] + 1))
    size = int(stop[-1]) + 1
    within = np.arange(size) - np.repeat(start, stop - start + 1)
    used = piece[:size]
    bits = np.where(within == LONGEST_NUMBER - 1, used, used & np.uint8(0x7F)).astype(np.uint64)
    values = np.add.reduceat(bits << (within * 7).astype(np.uint64), start)
    return values.view(np.int64), stop + 1
