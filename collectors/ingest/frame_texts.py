"""Writes the texts of a pprof profile's frames by machine code, straight into the buffers of an Arrow array.

It takes frames as nearly all are: with a name, in printable ASCII, no longer than the contract allows. Those of a
profile with any other are left to ``pprof``, which mends them. Cost: 0.2 ms for 3,000 frames, where Python takes 2.4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from collectors.scrapers.pprof_tables import Tables
from streams.schema.stacks import MAX_FIELD

Numbers = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., object])
Write = Callable[..., int]
_DIGITS = 19
"""Of the greatest line number that fits."""


def _write(
    data: NDArray[np.uint8], begin: Numbers, end: Numbers, frames: Numbers, longest: int, offsets: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> int:  # fmt: skip
    """Write ``name TAB file TAB line`` of each frame; returns how many bytes, -1 when one needs care.

    Args:
        data: the profile.
        begin: where each of its strings begins in it.
        end: where each ends.
        frames: (name, file, line) of each, shape (3, n); name and file are numbers of strings.
        longest: how long a string may be.
        offsets: is given where each text begins, and the end; shape (n + 1,).
        out: is given the texts.
    """
    at = 0
    count = frames.shape[1]
    for i in range(count):
        offsets[i] = at
        for part in range(2):
            first, last = begin[frames[part, i]], end[frames[part, i]]
            if last - first > longest or (part == 0 and last == first):
                return -1
            for place in range(first, last):
                byte = data[place]
                if byte < 32 or byte >= 127:
                    return -1
                out[at] = byte
                at += 1
            out[at] = 9
            at += 1
        line = frames[2, i]
        if line < 0:
            return -1
        digits, rest = 1, line
        while rest >= 10:
            rest //= 10
            digits += 1
        for place in range(at + digits - 1, at - 1, -1):
            out[place] = 48 + line % 10
            line //= 10
        at += digits
    offsets[count] = at
    return at


def _compiled(*, cache: bool) -> Write:
    made: Write = njit(nogil=True, boundscheck=True, cache=cache)(_write)
    none = np.zeros(0, np.int64)
    # It is compiled for the arguments of the first call; those of a profile are read-only views.
    made(np.frombuffer(b"", np.uint8), none, none, np.zeros((3, 0), np.int64), 0, np.zeros(1, np.int32),
         np.zeros(0, np.uint8))  # fmt: skip
    return made


@functools.cache
def code() -> Write:
    """Return the machine code; the first call compiles, or reads what was compiled before."""
    try:
        return _compiled(cache=True)
    except Exception:  # noqa: BLE001 - whatever ails the cache, it goes without one, or is raised again
        return _compiled(cache=False)


def spell(raw: bytes, tables: Tables, frames: Numbers) -> pa.StringArray | None:
    """Return the texts of distinct frames, None when one of them needs care.

    Args:
        raw: the profile.
        tables: what was read of it.
        frames: (name, file, line, ...) of each; name and file are in the string table.
    """
    if not frames[0].all():
        return None
    count = frames.shape[1]
    lengths = tables.string_end - tables.string_begin
    out = np.empty(int(lengths[frames[:2]].sum()) + (2 + _DIGITS) * count, np.uint8)
    offsets = np.empty(count + 1, np.int32)
    begin, end, chosen = map(np.ascontiguousarray, (tables.string_begin, tables.string_end, frames[:3]))
    size = code()(np.frombuffer(raw, np.uint8), begin, end, chosen, MAX_FIELD, offsets, out)
    if size < 0:
        return None
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(out[:size]))
