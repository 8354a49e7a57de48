"""System call latency: every call of every process, by the call's name.

Not: calls that do not return. 32-bit calls carry the names of the 64-bit table. Cost: 0.3 microseconds
for each call (two programs), and the kernel's slower entry path while they are attached.
"""

from __future__ import annotations

from collectors.bpf.kernel import thread_slots
from collectors.histograms import HistogramCollector
from collectors.profile.syscall_table import names

_NAMES = names()


class SyscallLatency(HistogramCollector):
    """The ``syscall`` probe; the operation is the name of the call."""

    name = "syscall"
    source = "syscalls.bpf.c"
    # Each short-lived process brings some forty calls, each with buckets of its own: a busy shell script fills 16384.
    entries = 65536

    def defines(self) -> dict[str, int]:
        """One slot for each pid."""
        return {"SLOTS": thread_slots()}

    def operation(self, op: int, kind: int) -> str:  # noqa: ARG002 - has one kind
        """Return the call's name."""
        return _NAMES.get(op, f"syscall_{op}")
