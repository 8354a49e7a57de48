"""Reads and writes of regular files, by process and file.

Measures the calls that moved bytes: read, write and their vector forms, sendfile and copy_file_range. Not: io_uring,
memory maps, splice, and files that are not regular (pipes, sockets, devices). The path is that of the process's own
mount namespace when its row was new, at most 24 names and 512 bytes of it (``…`` stands for the rest); a file that was
opened by several names has one of them. Calls of 32-bit programs are taken for 64-bit ones. Cost: 0.06 microseconds
for each system call of the node, 0.4 for one that is counted, and the slower entry path while it is attached.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.bpf import fields
from collectors.file_path import path_of
from collectors.profile.syscall_table import names
from collectors.top.base import KernelTop, schema

_CALLS = (
    "read", "pread64", "readv", "preadv", "preadv2", "write", "pwrite64", "writev", "pwritev", "pwritev2",
    "sendfile", "copy_file_range",
)  # fmt: skip


class TopFile(KernelTop):
    """One row for each (process, file)."""

    name = "top_file"
    source = "top_file.bpf.c"
    offsets = fields.FILES | fields.PATH | fields.INODE | fields.CALL
    key = np.dtype([("tgid", "u4"), ("dev", "u4"), ("inode", "u8")])
    values = ("reads", "writes", "read_bytes", "written_bytes")
    columns = schema(
        ("file", pa.string()),
        ("reads", pa.uint64()),
        ("writes", pa.uint64()),
        ("read_bytes", pa.uint64()),
        ("written_bytes", pa.uint64()),
        ("device", pa.string()),
        ("inode", pa.uint64()),
    )
    shown = ("service", "pid", "comm", "reads", "writes", "read_bytes", "written_bytes", "file")
    sort = "read_bytes,written_bytes"
    sums, counted, detail = values, ("reads", "writes"), ("file",)

    def defines(self) -> dict[str, int]:
        """Return the numbers of the calls, and room for paths."""
        number = {name: nr for nr, name in names().items()}
        return {f"NR_{name.upper()}": number[name] for name in _CALLS} | {"PATHS": 4096}

    def describe(self, keys: NDArray[Any]) -> dict[str, pa.Array]:
        """Return paths, devices (``major:minor``) and inodes."""
        assert self._programs is not None
        paths = self._programs.maps["paths"]
        found = [
            path_of(paths.lookup(struct.pack("<QII", inode, dev, 0)))
            for inode, dev in zip(keys["inode"].tolist(), keys["dev"].tolist(), strict=True)
        ]
        devices = [f"{dev >> 20}:{dev & 0xFFFFF}" for dev in keys["dev"].tolist()]
        return {
            "file": pa.array(found, pa.string()),
            "device": pa.array(devices, pa.string()),
            "inode": pa.array(keys["inode"].copy()),
        }
