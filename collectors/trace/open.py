"""Files opened: every open, openat, openat2 and creat that returned, with path, flags and result.

The path is the caller's own, at most 255 bytes of it, not resolved. Not: opens by handle, by io_uring, by the kernel
itself, and those of 32-bit programs. Exact: each is a row or counted as lost. Cost: 1 microsecond an open.
"""

from __future__ import annotations

import os
import struct

from collectors.bpf.requirements import TRACEFS
from collectors.calls import CallCollector
from collectors.events import Attributes, text

_LAYOUT = struct.Struct("<QIIii256s")
_AT_FDCWD = -100
_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
# O_SYNC has the bit of O_DSYNC, O_TMPFILE that of O_DIRECTORY: the wider ones are looked at first.
_FLAGS = tuple(
    (name, getattr(os, name))
    for name in (
        "O_SYNC", "O_DSYNC", "O_TMPFILE", "O_DIRECTORY", "O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND",
        "O_NONBLOCK", "O_ASYNC", "O_DIRECT", "O_NOFOLLOW", "O_NOATIME", "O_CLOEXEC", "O_PATH",
    )
)  # fmt: skip
_CREATES = os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY


class Open(CallCollector):
    """Events of kind ``open``; detail is the path, result 0 or -errno, latency that of the call."""

    name = "open"
    source = "open.bpf.c"
    detail_bytes = _LAYOUT.size

    def defines(self) -> dict[str, int]:
        """Say whether this machine has the calls open and creat."""
        return {"OLD_CALLS": 1} if (TRACEFS / "events/syscalls/sys_enter_open").exists() else {}

    def describe_detail(self, detail: bytes) -> tuple[str, Attributes]:
        """Return the path; flags, mode, descriptor and what a relative path starts from are attributes."""
        flags, mode, resolve, directory, fd, path = _LAYOUT.unpack(detail)
        attributes = [("flags", flags_text(flags))]
        if flags & _CREATES:
            attributes.append(("mode", f"{mode:04o}"))
        if resolve:
            attributes.append(("resolve", f"{resolve:#x}"))
        shown = text(path)
        if directory != _AT_FDCWD and not shown.startswith("/"):
            attributes.append(("directory_fd", str(directory)))
        if fd >= 0:
            attributes.append(("fd", str(fd)))
        return shown, attributes


def flags_text(flags: int) -> str:
    """Return open(2)'s flags by name, such as ``O_WRONLY|O_CREAT``; bits without a name as a number."""
    names, left = [_ACCESS[flags & 3]], flags & ~3
    for name, bits in _FLAGS:
        if bits and left & bits == bits:
            names.append(name)
            left &= ~bits
    left &= ~0o100000  # O_LARGEFILE, which the C library sets for 32-bit programs and some set anyhow
    return "|".join([*names, *([f"{left:#x}"] if left else [])])
