"""Ids of stacks, computed once for each: a program's profiles repeat its stacks, and hashing text is most of an id.

Cost: about 0.2 microseconds for each distinct frame and each stack that was seen before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streams.schema.stack_columns import StackColumns
from streams.schema.stacks import stack_id

Identify = Callable[[StackColumns], NDArray[np.uint64]]


def identify(stacks: StackColumns) -> NDArray[np.uint64]:
    """Return the id of each stack."""
    return np.fromiter((stack_id(text) for text in stacks.texts().to_pylist()), np.uint64, len(stacks))


class StackIds:
    """``identify`` with a memory. Thread-safe.

    Memory: about 150 bytes for each frame, and 130 and four for each of its frames for each stack; at most
    ``max_frames`` numbers of frames, in texts and in stacks. Beyond them it begins anew, which costs hashing again.
    """

    def __init__(self, max_frames: int = 4_000_000) -> None:
        self._max = max_frames
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._ids: dict[bytes, int] = {}
        self._held = 0

    def __call__(self, stacks: StackColumns) -> NDArray[np.uint64]:
        """Return the id of each stack."""
        frames = stacks.frames.to_pylist()
        with self._lock:
            if self._held + 16 * len(self._numbers) > self._max:
                self._numbers.clear()
                self._ids.clear()
                self._held = 0
            numbers, get = self._numbers, self._ids.get
            number = np.fromiter((numbers.setdefault(text, len(numbers)) for text in frames), np.int32, len(frames))
            whole = number[stacks.codes].tobytes()
            edges = (4 * stacks.offsets).tolist()
            keys = [whole[begin:end] for begin, end in pairwise(edges)]
            known = [get(key) for key in keys]
            new = [at for at, found in enumerate(known) if found is None]
            if new:
                added = stacks.take(np.array(new, np.int64))
                for at, found in zip(new, identify(added).tolist(), strict=True):
                    self._ids[keys[at]] = known[at] = found
                self._held += len(added.codes) + 32 * len(new)
        return np.array(known, np.uint64)
