"""What the agent may do: it starts with what it was given, keeps ``KEPT``, and can never get more again.

Capabilities belong to threads, and capset(2) changes the calling one only. So ``drop`` is called before the agent has
any other thread; threads and programs started later (the compiler) inherit. Loading programs and starting a collector
again after a failure need nothing that is not kept.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

KEPT = {
    "CAP_BPF": 39,  # load programs, create maps; before Linux 5.19 also to read maps by descriptor
    "CAP_PERFMON": 38,  # attach to tracepoints and CPU clocks
    "CAP_SYS_PTRACE": 19,  # /proc/PID/maps, exe, root and environ of every process: symbols and names
    "CAP_DAC_READ_SEARCH": 2,  # executables of other users, and tracefs where the agent is not root
    "CAP_SYSLOG": 34,  # addresses in /proc/kallsyms: names of kernel functions
    "CAP_CHECKPOINT_RESTORE": 40,  # /proc/PID/map_files: symbols of a file that was deleted or lies in a container
}
FOR_COLLECTORS = {
    "dns": {"CAP_NET_RAW": 13},  # a packet socket for each namespace that appears
    "top_ebpf": {"CAP_SYS_ADMIN": 21},  # other people's programs, and the kernel's account of their run time
}
"""What a collector needs beyond that, kept where ``agent.collectors`` names it."""
_VERSION = 0x20080522
_SET_NO_NEW_PRIVS, _CAPBSET_READ, _CAPBSET_DROP, _CAP_AMBIENT = 38, 23, 24, 47
_AMBIENT_IS_SET, _AMBIENT_LOWER = 1, 3
_CAPGET, _CAPSET = (90, 91) if os.uname().machine == "aarch64" else (125, 126)
_STATUS = re.compile(r"^(Cap\w+|NoNewPrivs):\s*([0-9a-f]+)", re.MULTILINE)
_libc = ctypes.CDLL(None, use_errno=True)


def drop(kept: Iterable[int] = KEPT.values()) -> None:
    """Give up every capability of this thread but ``kept``, for good; what it does not have it does not get.

    Raises:
        OSError: the kernel refuses, which it never does to somebody who wants less.
    """
    mask = sum(1 << number for number in kept)
    _prctl(_SET_NO_NEW_PRIVS, 1)
    for number in range(_last() + 1):
        if mask >> number & 1:
            continue
        if _libc.prctl(_CAP_AMBIENT, _AMBIENT_IS_SET, number, 0, 0) == 1:
            _prctl(_CAP_AMBIENT, _AMBIENT_LOWER, number)
        if _libc.prctl(_CAPBSET_READ, number, 0, 0, 0) == 1:
            # Without CAP_SETPCAP (an agent that is not root) it is refused; no program can gain anything then, either.
            with suppress(PermissionError):
                _prctl(_CAPBSET_DROP, number)
    header = struct.pack("<Ii", _VERSION, 0)
    held = ctypes.create_string_buffer(24)
    _call(_CAPGET, header, held)
    effective_low, permitted_low, inheritable_low, effective_high, permitted_high, inheritable_high = (
        struct.unpack("<6I", held.raw)
    )  # fmt: skip
    low, high = mask & 0xFFFFFFFF, mask >> 32
    wanted = struct.pack(
        "<6I", effective_low & low, permitted_low & low, inheritable_low & low,
        effective_high & high, permitted_high & high, inheritable_high & high,
    )  # fmt: skip
    _call(_CAPSET, header, ctypes.create_string_buffer(wanted, 24))


def kept(collectors: Iterable[str]) -> dict[str, int]:
    """Return ``KEPT`` and what the collectors of these names need."""
    return dict(KEPT, **{name: number for each in collectors for name, number in FOR_COLLECTORS.get(each, {}).items()})


def beyond(proc: Path = Path("/proc/self"), kept: Iterable[int] = KEPT.values()) -> list[str]:
    """Return what threads of a process hold beyond ``kept``, one line each; empty when all is as it should be."""
    allowed = sum(1 << number for number in kept)
    lines = []
    for task in sorted((proc / "task").iterdir(), key=lambda path: int(path.name)):
        try:
            held = dict(_STATUS.findall((task / "status").read_text()))
        except OSError:
            continue  # the thread has ended
        more = {name: int(value, 16) & ~allowed for name, value in held.items() if name != "NoNewPrivs"}
        # The bounding set is what a program could gain at exec; with "no new privileges" it gains nothing.
        if held.get("NoNewPrivs") == "1" and os.geteuid() != 0:
            more.pop("CapBnd", None)
        lines += [f"thread {task.name} has {name} {value:x} too much" for name, value in more.items() if value]
    return lines


def holds(name: str, status: Path = Path("/proc/thread-self/status")) -> bool:
    """Return whether this thread has a capability of ``KEPT`` in effect."""
    effective = dict(_STATUS.findall(status.read_text()))["CapEff"]
    return bool(int(effective, 16) >> KEPT[name] & 1)


def take_over(directory: Path) -> None:
    """Make a directory of ours if there is none; one that an earlier run left under another user becomes this user's.

    After ``drop`` root may write its own files only. Errors are left to whoever uses the directory.
    """
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        user = os.geteuid()
        for path in (directory, *directory.iterdir()):
            if path.lstat().st_uid != user:
                os.chown(path, user, -1, follow_symlinks=False)


def _last() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _prctl(option: int, *arguments: int) -> None:
    padded = [*arguments, 0, 0, 0, 0][:4]
    if _libc.prctl(option, *(ctypes.c_ulong(value) for value in padded)) != 0:
        _fail(f"prctl {option}")


def _call(number: int, header: bytes, data: ctypes.Array[ctypes.c_char]) -> None:
    # capget writes into the header when it does not know the version.
    if _libc.syscall(ctypes.c_long(number), ctypes.create_string_buffer(header, len(header)), data) != 0:
        _fail(f"capabilities {number}")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
