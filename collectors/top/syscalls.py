"""System calls by process and call: how many, how many failed, how long they took.

Measures every call that returned in the interval. Not: calls that have not returned yet (a server's ``accept`` counts
when it ends), and those that never do. A 32-bit caller's calls carry the names of the 64-bit table. Cost: 0.3
microseconds a call (two programs), and the kernel's slower entry path while they are attached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.bpf.kernel import thread_slots
from collectors.profile.syscall_table import names
from collectors.top.base import KernelTop, schema

_NAMES = names()


class TopSyscalls(KernelTop):
    """One row for each (process, call)."""

    name = "top_syscalls"
    source = "top_syscalls.bpf.c"
    key = np.dtype([("tgid", "u4"), ("nr", "u4")])
    values = ("calls", "errors", "time_ns")
    rows = 16384
    columns = schema(
        ("syscall", pa.string()), ("calls", pa.uint64()), ("errors", pa.uint64()), ("time_ns", pa.uint64())
    )
    shown = ("service", "pid", "comm", "syscall", "calls", "errors", "time_ns")
    sort = "calls"
    sums, counted, detail = values, ("calls",), ("syscall",)

    def defines(self) -> dict[str, int]:
        """One slot for each pid."""
        return {"SLOTS": thread_slots()}

    def describe(self, keys: NDArray[Any]) -> dict[str, pa.Array]:
        """Return the calls' names."""
        return {"syscall": pa.array([_NAMES.get(nr, f"syscall_{nr}") for nr in keys["nr"].tolist()], pa.string())}
