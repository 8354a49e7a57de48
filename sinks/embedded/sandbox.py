"""Keeps the engine away from the machine's files: Landlock, so that SQL reaches the store's own directory and no other.

The engine is built for the command line: ``file()``, ``ATTACH ... FROM`` and others open any path that the process may
open, and ``up`` runs as root. After ``confine`` the kernel refuses everything except the store's directory and the
files that Python and the engine need to run; no program can be executed and, from Linux 6.7 on, no TCP connection be
made. Needs Linux 5.19; no privilege. Cost: none that could be measured.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sinks.embedded import environment

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVS = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_EXECUTE, _CONNECT = 1 << 0, 1 << 1
_FIRST_ABI = 2  # before, no file could be renamed into another directory, which the engine does all the time
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/localtime", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf",
    "/dev/urandom", "/dev/random", "/dev/null", "/sys/fs/cgroup", "/sys/devices/system", "/sys/kernel/mm",
    "/proc/meminfo", "/proc/stat", "/proc/cpuinfo", "/proc/loadavg", "/proc/uptime", "/proc/sys/kernel", "/proc/sys/vm",
)  # fmt: skip
# Not /proc/self as a whole: its environ may hold passwords. Without its auxv the engine looks for the auxiliary vector
# behind the environment, which is no longer there once a variable has been set, and ends with a segmentation fault.
_OWN = ("auxv", "stat", "statm", "status", "fd", "limits", "cgroup", "mounts", "mountinfo", "maps")
_pins: list[int] = []
"""Descriptors that keep the inodes of ``/proc`` alive, to which the rules are bound."""


def confine(directory: Path) -> bool:
    """Allow this process, for the rest of its life, to write in ``directory`` only; call it before any thread starts.

    Returns:
        False when the kernel has no Landlock (or an old one), and nothing is confined.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    if abi < _FIRST_ABI:
        return False
    files = (1 << 14) - 1 if abi == _FIRST_ABI else (1 << 15) - 1
    ruleset = struct.pack("<QQ", files, _CONNECT) if abi >= 4 else struct.pack("<Q", files)
    rules = libc.syscall(_CREATE, ruleset, ctypes.c_size_t(len(ruleset)), 0)
    if rules < 0:
        return False
    try:
        for path in _readable():
            _allow(libc, rules, path, _READ_FILE | _READ_DIR)
        _allow(libc, rules, directory, files & ~_EXECUTE)
        _allow(libc, rules, Path("/dev/null"), _READ_FILE | _WRITE_FILE)
        return bool(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _readable() -> Iterable[Path]:
    yield from map(Path, _SYSTEM)
    yield from (Path("/proc/self") / name for name in _OWN)
    if environment.hidden():
        yield Path("/proc/self/task")
    yield from {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]} - {Path("/")}


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    """Add one rule; a path that does not exist here needs none."""
    with suppress(OSError):
        number = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _pins.append(number)
        if not path.is_dir():
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        libc.syscall(_ADD, rules, 1, struct.pack("<Qi", rights, number), 0)
