"""The path of a cgroup by its id, which is what the kernel's side tells of a process that may be gone.

The id is the file handle of its directory (kernfs), so open_by_handle_at(2) answers in microseconds, by the capability
that the agent keeps for reading executables (CAP_DAC_READ_SEARCH; Linux 5.5). Where that is refused the tree is walked,
every ten seconds at most: an id is the inode number of the directory. Cgroup v2 only: the kernel tells no other id, so
on a node with v1 alone nothing is found here. A cgroup that is gone is known only when it was asked for before.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from collectors.cgroup_path import CgroupPlace, place_of
from collectors.symbols.lru import Lru

_FILEID_KERNFS = 0xFE  # Linux include/linux/exportfs.h
_WALK_S = 10.0
_MOST_DIRECTORIES = 50_000
_MOUNT = re.compile(r"^\d+ \d+ \S+ (\S+) (\S+) .* - cgroup2 ", re.MULTILINE)
_libc = ctypes.CDLL(None, use_errno=True)


class _Handle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint32), ("type", ctypes.c_int32), ("id", ctypes.c_uint64))


class CgroupIds:
    """Looks cgroups up by id. Not thread-safe.

    Args:
        root: where cgroup v2 is mounted (see ``mounted``); None finds nothing.
        clock: seconds, monotonic.
        bound: how many ids are remembered.
    """

    def __init__(self, root: Path | None, clock: Callable[[], float] = time.monotonic, bound: int = 4096) -> None:
        self.root = root
        self._clock = clock
        self._places: Lru[int, CgroupPlace] = Lru(bound)
        self._missed: Lru[int, float] = Lru(bound)
        self._walked = float("-inf")
        self._refused = False

    def place(self, cgroup_id: int) -> CgroupPlace | None:
        """Return where a cgroup stands; None when that is not known."""
        if not cgroup_id or self.root is None:
            return None
        known = self._places.get(cgroup_id)
        if known is not None:
            return known
        missed = self._missed.get(cgroup_id)
        if missed is not None and self._clock() - missed < _WALK_S:
            return None
        path = self._open(cgroup_id)
        if path is None and self._refused:
            self._walk()
            if (known := self._places.get(cgroup_id)) is not None:
                return known
        if path is None:
            self._missed.put(cgroup_id, self._clock())
            return None
        place = place_of(f"0::{path}")
        self._places.put(cgroup_id, place)
        return place

    def _open(self, cgroup_id: int) -> str | None:
        """Return a path below the root, by the handle; None when there is none or the kernel refuses."""
        if self._refused:
            return None
        handle = _Handle(8, _FILEID_KERNFS, cgroup_id)
        mount = os.open(str(self.root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = _libc.open_by_handle_at(mount, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC)
            if fd < 0:
                # ESTALE: there is no such cgroup. Anything else: this kernel, or this process's rights.
                self._refused = ctypes.get_errno() != errno.ESTALE
                return None
        finally:
            os.close(mount)
        try:
            return "/" + os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(self.root)).lstrip("/")  # noqa: PTH115
        finally:
            os.close(fd)

    def _walk(self) -> None:
        if self._clock() - self._walked < _WALK_S:
            return
        self._walked = self._clock()
        pending, seen = [str(self.root)], 0
        while pending and seen < _MOST_DIRECTORIES:
            at = pending.pop()
            try:
                with os.scandir(at) as entries:
                    children = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue  # it has been removed
            for child in children:
                seen += 1
                pending.append(child.path)
                self._places.put(child.inode(), place_of(f"0::{child.path.removeprefix(str(self.root))}"))


def mounted(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """Return where cgroup v2 is mounted, the whole of it rather than a part; None when it is not."""
    try:
        found = _MOUNT.findall(mountinfo.read_text())
    except OSError:
        return None
    found.sort(key=lambda mount: len(mount[0]))
    return Path(found[0][1]) if found else None
