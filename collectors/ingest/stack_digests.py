"""Digests of stacks by machine code: 128 bits each, keyed, to know again what was seen in this process.

Each frame's text is hashed once (FNV-1a's step with a secret multiplier, and a final mix), a stack's two halves run
over its frames' hashes. Not a cryptographic hash: what protects it is that its keys are drawn at the start and its
values never leave the process. Cost: 0.3 ms for 3,000 frames of 60 bytes and 1,000 stacks of 25.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from collectors.ingest.machine_code import made_by, readable
from streams.schema.stack_columns import StackColumns

Hash = Callable[..., None]
_KEYS = np.array([secrets.randbits(64) | 1 for _ in range(6)], np.uint64)


def _hash(
    data: NDArray[np.uint8], begins: NDArray[np.int32], codes: NDArray[np.int32], offsets: NDArray[np.int64],
    keys: NDArray[np.uint64], frames: NDArray[np.uint64], out: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Hash stacks.

    Args:
        data: the texts of all frames.
        begins: where each frame begins in ``data``, and the end.
        codes: the frames of all stacks.
        offsets: where each stack begins in ``codes``, and the end.
        keys: six odd numbers.
        frames: room for the frames' hashes.
        out: is given the digests, shape (stacks, 2).
    """
    for frame in range(len(frames)):
        value = keys[0]
        for place in range(begins[frame], begins[frame + 1]):
            value = (value ^ np.uint64(data[place])) * keys[1]
        value ^= value >> np.uint64(32)
        value *= keys[2]
        frames[frame] = value ^ (value >> np.uint64(29))
    for stack in range(len(out)):
        one, two = keys[3], keys[4]
        for place in range(offsets[stack], offsets[stack + 1]):
            value = frames[codes[place]]
            one = (one ^ value) * keys[5]
            one ^= one >> np.uint64(31)
            two = (two + value) * keys[1]
            two ^= two >> np.uint64(33)
        out[stack, 0], out[stack, 1] = one, two


def _compiled(*, cache: bool) -> Hash:
    made: Hash = njit(nogil=True, boundscheck=True, cache=cache)(_hash)
    # It is compiled for the arguments of the first call.
    _digests(StackColumns.from_texts(["main\t\t0"]), made)
    return made


@functools.cache
def code() -> Hash:
    """Return the machine code; the first call compiles, or reads what was compiled before."""
    return made_by(_compiled)


def digests(stacks: StackColumns) -> bytes:
    """Return 16 bytes for each stack."""
    return _digests(stacks, code())


def _digests(stacks: StackColumns, made: Hash) -> bytes:
    count = len(stacks.frames)
    if not count:
        return bytes(16 * len(stacks))
    _, places, texts = stacks.frames.buffers()
    begins = np.frombuffer(places, np.int32)[stacks.frames.offset :][: count + 1]
    data = np.frombuffer(texts, np.uint8) if texts is not None else np.zeros(1, np.uint8)
    out = np.empty((len(stacks), 2), np.uint64)
    codes, offsets = stacks.codes.astype(np.int32, copy=False), stacks.offsets.astype(np.int64, copy=False)
    given = (readable(array) for array in (data, begins, codes, offsets))
    made(*given, _KEYS, np.empty(count, np.uint64), out)
    return out.tobytes()
