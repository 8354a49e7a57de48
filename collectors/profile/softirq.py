"""Soft interrupts: how long each run of a handler took, by vector (TIMER, NET_RX, SCHED, ...).

Measures every run on every CPU, at the end of an interrupt or in ksoftirqd; hard interrupts that came in between are
part of it. Not: how long one waited between being raised and run, and what a handler runs on a PREEMPT_RT kernel, where
they can be preempted and nest. Whoever was interrupted has nothing to do with it: the service is ``kernel``.
Cost: 0.3 microseconds a run (two programs).
"""

from __future__ import annotations

from collectors.histograms import HistogramCollector

# Linux include/linux/interrupt.h: part of what /proc/softirqs shows.
_VECTORS = ("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU")


class SoftIrqLatency(HistogramCollector):
    """The ``softirq`` probe; the operation is the vector as ``/proc/softirqs`` names it."""

    name = "softirq"
    source = "softirq.bpf.c"
    entries = 4096

    def operation(self, op: int, kind: int) -> str:  # noqa: ARG002 - has one kind
        """Return the vector's name."""
        return _VECTORS[op] if op < len(_VECTORS) else f"vector_{op}"
