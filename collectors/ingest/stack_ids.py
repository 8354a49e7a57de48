"""Ids of stacks, computed once for each: a program's profiles repeat its stacks, and hashing text is most of an id.

A stack is known again by 128 bits of a hash that no one outside of this process can compute, for it is keyed by chance;
the id itself has 64. Where the hash is not compiled (yet), every id is computed. Cost: 0.1 ms for 1,000 stacks of 25
frames that were seen before, 4 ms for new ones.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from collectors.ingest import pprof_reader
from streams.schema.stack_columns import StackColumns, identify

MAX_KNOWN = 250_000
"""13 MB; beyond it the memory begins anew, which costs computing ids again."""


class StackIds:
    """The ids of stacks, remembered. Thread-safe."""

    def __init__(self, bound: int = MAX_KNOWN) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        # A hash table of digests, half of it free at least, and the ids beside them.
        slots = 1 << (2 * bound - 1).bit_length()
        self._table = np.zeros((slots, 2), np.uint64)
        self._ids = np.zeros(slots, np.uint64)
        self.count = 0

    def __call__(self, stacks: StackColumns) -> NDArray[np.uint64]:
        """Return the id of each stack."""
        code = pprof_reader.again()
        if code is None:
            return identify(stacks)
        digests = code.digests(stacks)
        with self._lock:
            found, missing = code.find(digests, self._table, self._ids)
        if missing:
            new = np.flatnonzero(found == 0)
            found[new] = identify(stacks.take(new))
            with self._lock:
                room = new[: self._bound]
                if self.count + len(room) > self._bound:
                    self._table[:] = 0
                    self.count = 0
                self.count += code.add(digests[room], found[room], self._table, self._ids)
        return found
