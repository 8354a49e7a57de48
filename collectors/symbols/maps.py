"""The executable mappings of a process, as ``/proc/PID/maps`` tells them (proc(5))."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_MAPPINGS = 65536


@dataclass(frozen=True, slots=True)
class Mapping:
    """One executable mapping; ``range_text`` is its name under ``map_files``, ``path`` "" when anonymous."""

    range_text: str
    offset: int
    device: str
    inode: int
    path: str

    @property
    def is_file(self) -> bool:
        """Whether a file lies behind it."""
        return self.inode != 0 and self.path.startswith("/")

    @property
    def may_be_jit(self) -> bool:
        """Whether code in it may come from a JIT: memory with no file behind it, and not the kernel's own."""
        return not self.is_file and self.path not in ("[vdso]", "[vsyscall]")

    @property
    def shown_path(self) -> str:
        """The path without the kernel's mark for deleted files."""
        return self.path.removesuffix(" (deleted)")


@dataclass(frozen=True, slots=True)
class Mappings:
    """All executable mappings, ascending; ``starts`` and ``ends`` are parallel to ``entries``."""

    starts: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    entries: tuple[Mapping, ...]

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return for each address the index of its mapping, -1 where there is none."""
        if not self.entries:
            return np.full(len(addresses), -1, dtype=np.int64)
        at = np.searchsorted(self.starts, addresses, side="right").astype(np.int64) - 1
        return np.where((at >= 0) & (addresses < self.ends[np.maximum(at, 0)]), at, -1)


EMPTY = Mappings(np.zeros(0, np.uint64), np.zeros(0, np.uint64), ())


def parse(text: bytes) -> Mappings:
    """Return the executable mappings in the text of a maps file; lines that do not parse are left out."""
    starts, ends, entries = [], [], []
    for line in text.split(b"\n"):
        # "start-end perms offset dev inode      path"; most lines are not executable, so look at that first.
        if line.find(b"x", 0, 48) < 0:
            continue
        parts = line.split(None, 5)
        if len(parts) < 5 or b"x" not in parts[1]:
            continue
        try:
            low, high = parts[0].split(b"-")
            start, end, offset, inode = int(low, 16), int(high, 16), int(parts[2], 16), int(parts[4])
        except ValueError:
            continue
        path = parts[5].decode("utf-8", "surrogateescape").replace("\\012", "\n") if len(parts) > 5 else ""
        starts.append(start)
        ends.append(end)
        entries.append(Mapping(parts[0].decode(), offset, parts[3].decode(), inode, path))
        if len(entries) >= MAX_MAPPINGS:
            break
    return Mappings(np.array(starts, np.uint64), np.array(ends, np.uint64), tuple(entries))
