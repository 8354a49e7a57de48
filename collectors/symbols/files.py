"""Opening a process's files as the process sees them, without ever being led out of its root.

Paths and links in a container are its owner's choice, and the agent is root: so a path is resolved inside the
process's root (openat2(2), RESOLVE_IN_ROOT), only regular files are opened, and never one that blocks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_regular(path: Path) -> int:
    """Open a regular file; returns a descriptor.

    Raises:
        OSError: it cannot be opened or is not a regular file.
    """
    return _only_regular(os.open(path, _FLAGS))


def open_in_root(root: Path, path: str) -> int:
    """Open ``path`` as seen by a process whose root is ``root`` (``/proc/PID/root``); returns a descriptor.

    Raises:
        OSError: it cannot be opened there, is not a regular file, or the kernel is older than 5.6.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(_FLAGS, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        fd = _libc.syscall(
            _SYS_OPENAT2, directory, os.fsencode(path.lstrip("/")), ctypes.byref(how), ctypes.sizeof(how)
        )
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return _only_regular(int(fd))
    finally:
        os.close(directory)


def _only_regular(fd: int) -> int:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("not a regular file")
    return fd


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close the descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)
