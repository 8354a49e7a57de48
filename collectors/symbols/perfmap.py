"""``/tmp/perf-PID.map``: what a JIT says about its code (Linux ``tools/perf/Documentation/jit-interface.txt``).

Lines of ``START SIZE name`` in hexadecimal. A JIT only appends, so only the new tail is read; what was written last
about an address wins. At most ``MAX_BYTES`` of a file are kept.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from collectors.symbols.elf import Read

MAX_BYTES = 32 * 1024 * 1024
# V8: what kind of code, how far it is optimised (~ interpreted, ^ or + baseline, * optimised), name, place.
_V8 = re.compile(r"(?:JS|LazyCompile|Function|Script|Eval):[~^*+]?(\S*) (.*?):(\d+)(?::\d+)?\Z")


class PerfMap:
    """The parsed map of one process; ``update`` reads what was appended since."""

    def __init__(self) -> None:
        self._read_to = 0
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)
        self._starts: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._ends: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._names: list[bytes] = []
        self._all_starts: list[int] = []
        self._all_sizes: list[int] = []

    def __len__(self) -> int:
        return len(self._names)

    def update(self, read: Read, size: int) -> bool:
        """Take in what was appended; returns whether anything changed."""
        if size < self._read_to:  # a new file under the old name
            self.__init__()  # type: ignore[misc]
        if size <= self._read_to or self._read_to >= MAX_BYTES:
            return False
        tail = read(self._read_to, min(size, MAX_BYTES) - self._read_to)
        whole = tail.rfind(b"\n") + 1  # the last line may still be being written
        self._read_to += whole
        before = len(self._names)
        for line in tail[:whole].split(b"\n"):
            parts = line.split(b" ", 2)
            if len(parts) != 3:
                continue
            try:
                start, length = int(parts[0], 16), int(parts[1], 16)
            except ValueError:
                continue
            if 0 < length < 1 << 40 and 0 <= start < 1 << 63:
                self._all_starts.append(start)
                self._all_sizes.append(length)
                self._names.append(parts[2].strip())
        if len(self._names) == before:
            return False
        starts = np.array(self._all_starts, np.uint64)
        # Ascending by start; of equal starts the one written last comes last, and searchsorted(right) - 1 finds it.
        self._order = np.argsort(starts, kind="stable")
        self._starts = starts[self._order]
        self._ends = self._starts + np.array(self._all_sizes, np.uint64)[self._order]
        return True

    def name(self, address: int) -> str:
        """Return the name of the code at an address, "" when the map does not say."""
        at = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        if at < 0 or address >= int(self._ends[at]):
            return ""
        return self._names[int(self._order[at])].decode("utf-8", "replace")


def parts(name: str, file: str) -> tuple[str, str, int]:
    """Return (function, file, line) of a name, ``file`` where it does not say; V8's are the same however compiled."""
    found = _V8.match(name)
    if found is None:
        return name, file, 0
    return found[1] or "(anonymous)", found[2], int(found[3])
