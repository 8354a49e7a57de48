"""Device interrupts: how long each run of a handler took, by interrupt number and the devices that use it.

Measures every handler that the kernel's interrupt layer calls. Not: the interrupts of the CPU's own controller (local
timer, rescheduling and other calls between CPUs), which have no handler there. A line that devices share has one row
with all their names. Whoever was interrupted has nothing to do with it: the service is ``kernel``. Cost: 0.6
microseconds a run (two programs).
"""

from __future__ import annotations

from pathlib import Path

from collectors.histograms import HistogramCollector

_INTERRUPTS = Path("/sys/kernel/irq")


class HardIrqLatency(HistogramCollector):
    """The ``hardirq`` probe; operations are ``NUMBER NAME[,NAME]``."""

    name = "hardirq"
    source = "hardirq.bpf.c"
    entries = 4096

    def operation(self, op: int, kind: int) -> str:  # noqa: ARG002 - has one kind
        """Return the number and the names of those that handle it."""
        try:
            return f"{op} {(_INTERRUPTS / str(op) / 'actions').read_text().strip()}".rstrip()
        except OSError:
            return str(op)
