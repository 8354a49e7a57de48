"""Waits in futex(2), which locks, condition variables and joins of threads are made of: by process and outcome.

Measures every wait (``FUTEX_WAIT``, ``_WAIT_BITSET``, ``_LOCK_PI``, ``_LOCK_PI2``, ``_WAIT_REQUEUE_PI``) that returned,
apart by how it ended: woken, timed out, changed (the word had another value: nobody waited), interrupted, failed. A
thread pool that has nothing to do waits here, too. Not: waking, requeueing, ``futex_waitv`` and the calls of Linux 6.7
(``futex_wait``). Cost: 0.4 microseconds for each wait, 0.15 for another call, and the slower system call entry while
it is attached. On demand: a contended lock makes 100,000 of these calls a second.
"""

from __future__ import annotations

from collectors.bpf.kernel import thread_slots
from collectors.histograms import HistogramCollector

# Linux include/uapi/linux/futex.h
_OPERATIONS = {0: "wait", 6: "lock_pi", 9: "wait_bitset", 11: "wait_requeue_pi", 13: "lock_pi2"}
_OUTCOMES = ("woken", "timed out", "changed", "interrupted", "failed")


class FutexLatency(HistogramCollector):
    """The ``futex`` probe; operations are ``wait woken``, ``wait timed out``, ``lock_pi woken``, ..."""

    name = "futex"
    source = "futex.bpf.c"

    def defines(self) -> dict[str, int]:
        """One slot for each pid."""
        return {"SLOTS": thread_slots()}

    def operation(self, op: int, kind: int) -> str:
        """Return what was waited for how, and how it ended."""
        return f"{_OPERATIONS.get(op, f'op{op}')} {_OUTCOMES[kind]}"
