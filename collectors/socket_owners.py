"""Which process holds a socket, by the socket's inode, as ``/proc/PID/fd`` tells it (proc(5)).

For events that happen while no process is at hand. All sockets of the node are looked through (2 microseconds for each
descriptor) only when an unknown inode turns up, and in at most a hundredth of the time; what was found is remembered
until the next look.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

MAX_SOCKETS = 65_536
MAX_DESCRIPTORS = 200_000
SHARE = 100
_SOCKET = "socket:["


class SocketOwners:
    """Finds the processes of sockets. Of several that share one it is the first by number, mostly the parent."""

    def __init__(self, proc: Path = Path("/proc"), now: Callable[[], float] = time.monotonic) -> None:
        self._proc, self._now = proc, now
        self._known: dict[int, int] = {}
        self._not_before = 0.0

    def find(self, inodes: Collection[int]) -> dict[int, int]:
        """Return {inode: pid} of those that are found."""
        wanted = {inode for inode in inodes if inode}
        began = self._now()
        if wanted - self._known.keys() and began >= self._not_before:
            self._known = self._look()
            self._not_before = self._now() + SHARE * (self._now() - began)
        return {inode: self._known[inode] for inode in wanted if inode in self._known}

    def _look(self) -> dict[int, int]:
        found: dict[int, int] = {}
        left = MAX_DESCRIPTORS
        for pid in sorted(int(path.name) for path in self._proc.iterdir() if path.name.isdigit()):
            home = f"{self._proc}/{pid}/fd"
            try:
                names = os.listdir(home)  # noqa: PTH208 - paths cost twice as much
            except OSError:
                continue  # it has ended
            for name in names[:left]:
                try:
                    text = os.readlink(f"{home}/{name}")  # noqa: PTH115
                except OSError:
                    continue
                if text.startswith(_SOCKET):
                    found.setdefault(int(text[len(_SOCKET) : -1]), pid)
            left -= len(names)
            if left <= 0 or len(found) >= MAX_SOCKETS:
                break
        return found
