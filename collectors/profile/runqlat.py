"""Run queue latency: how long threads that could run waited for a CPU, by process.

Measures: woken, new or preempted until running, every one. Not: waits of the idle task; kernel threads are one
process (kthreadd). Cost: 0.1 microseconds a wake-up and 0.2 a switch.
"""

from __future__ import annotations

from collectors.bpf.kernel import thread_slots
from collectors.histograms import HistogramCollector


class RunQueueLatency(HistogramCollector):
    """The ``runqlat`` probe; one operation, ""."""

    name = "runqlat"
    source = "runqlat.bpf.c"

    def defines(self) -> dict[str, int]:
        """One slot for each pid."""
        return {"SLOTS": thread_slots()}
