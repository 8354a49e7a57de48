"""The kernel's own symbols, from ``/proc/kallsyms``.

With ``kernel.kptr_restrict`` set (or without CAP_SYSLOG) all addresses there read 0: ``available`` is then False, and
frames are named ``[kernel]``. Memory: 12 bytes a symbol and the names in one block, about 6 MB for a usual kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MODULE = "[kernel]"
_CODE = frozenset(b"tTwW")
_REFRESH_S = 60.0


class KernelSymbols:
    """Names of kernel addresses; reads the list again, at most once a minute, when an address lies beyond it."""

    def __init__(self, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic) -> None:
        self._path = proc / "kallsyms"
        self._clock = clock
        self._loaded_at = float("-inf")
        self._addresses: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._offsets: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._names = b""

    @property
    def available(self) -> bool:
        """Whether this machine lets us see kernel addresses."""
        self._load()
        return len(self._addresses) > 0

    def _load(self) -> None:
        if self._clock() - self._loaded_at < _REFRESH_S:
            return
        self._loaded_at = self._clock()
        addresses, names, offsets, at = [], [], [], 0
        try:
            with self._path.open("rb") as lines:
                for line in lines:
                    # Address in 16 digits, a blank, the kind, a blank, the name, perhaps a tab and the module.
                    if line[17] not in _CODE:
                        continue
                    name = line[19:].rstrip()
                    addresses.append(int(line[:16], 16))
                    offsets.append(at)
                    names.append(name)
                    at += len(name) + 1
        except (OSError, ValueError, IndexError):
            return
        values = np.array(addresses, np.uint64)
        if not np.any(values):
            return
        order = np.argsort(values, kind="stable")
        self._addresses = values[order]
        self._offsets = np.array(offsets, np.uint32)[order]
        self._names = b"\n".join(names) + b"\n"

    def names(self, addresses: NDArray[np.uint64]) -> list[tuple[str, str]]:
        """Return (function, module) of each address; the function is the module in brackets when it has no name."""
        if not self._addresses.size:
            self._load()
        if not self._addresses.size:
            return [(MODULE, MODULE)] * len(addresses)
        at = np.searchsorted(self._addresses, addresses, side="right").astype(np.int64) - 1
        return [self._name(int(index)) if index >= 0 else (MODULE, MODULE) for index in at]

    def _name(self, index: int) -> tuple[str, str]:
        start = int(self._offsets[index])
        text = self._names[start : self._names.index(b"\n", start)].decode("ascii", "replace")
        name, _, module = text.partition("\t")
        return name, module or MODULE
