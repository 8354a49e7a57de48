"""Slow file operations: reads, writes, opens and fsyncs that took as long as a threshold (10 ms unless told otherwise).

Of regular files and, when opened, directories; by system call, so that it is what the program waited for, whatever the
reason: disk, lock, network, page cache. Not: sockets, pipes and devices; memory maps, io_uring, sendfile; opens that a
signal interrupted. The path is that of the process's mount namespace; of an open that failed, the caller's own text.
Cost: 0.2 microseconds for each system call of the node, and the slower entry path while it is attached.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from collectors.base import WorkloadResolver
from collectors.bpf import fields
from collectors.bpf.kernel import thread_slots
from collectors.events import Attributes, EventCollector, text
from collectors.file_path import path_of
from collectors.profile.syscall_table import names
from collectors.wanted import Wanted

THRESHOLD_NS = 10_000_000
_LAYOUT = struct.Struct("<qI4x16s")
_OPERATIONS = ("", "read", "write", "open", "fsync")
_AS_CALLED = 2
_CALLS = (
    "read", "pread64", "readv", "preadv", "preadv2", "write", "pwrite64", "writev", "pwritev", "pwritev2", "openat",
    "openat2", "open", "creat", "fsync", "fdatasync",
)  # fmt: skip


class FsSlower(EventCollector):
    """Events of kind ``fsslower``; detail is the file, latency that of the call, result 0 or -errno.

    The threshold is ``wanted.min_latency_ns`` where that is given.
    """

    name = "fsslower"
    source = "fsslower.bpf.c"
    offsets = fields.FILES | fields.PATH | fields.INODE | fields.CALL | fields.FILE_SYSTEM
    detail_bytes = 808

    def __init__(
        self,
        workloads: WorkloadResolver | None = None,
        *,
        cache: Path | None = None,
        ring_bytes: int | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        wanted = wanted or Wanted()
        threshold = wanted.min_latency_ns or THRESHOLD_NS
        super().__init__(
            workloads, cache=cache, ring_bytes=ring_bytes, wanted=replace(wanted, min_latency_ns=threshold)
        )

    def defines(self) -> dict[str, int]:
        """Return the numbers of the calls that this machine has, and one slot for each pid."""
        number = {name: nr for nr, name in names().items()}
        return {f"NR_{name.upper()}": number[name] for name in _CALLS if name in number} | {"SLOTS": thread_slots()}

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the file; operation, bytes and the file system's type are attributes."""
        raw = record["detail"].tobytes()
        moved, operation, kind = _LAYOUT.unpack_from(raw)
        path = raw[_LAYOUT.size :]
        length, whole = struct.unpack_from("<II", path)
        shown = text(path[8 : 8 + length]) if whole == _AS_CALLED else path_of(path)
        attributes = [("operation", _OPERATIONS[operation]), ("filesystem", text(kind))]
        if operation <= 2:
            attributes.append(("bytes", str(moved)))
        return shown, [each for each in attributes if each[1]]
