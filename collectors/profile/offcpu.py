"""Time that threads spend blocked, by the stack they wait in.

Measures: each wait (interruptible or not: locks, sleeps, I/O, pipes, sockets) longer than a threshold, 1 ms by
default, in full, from leaving the CPU to being back on it; so it includes the time in the run queue after the wake-up.
A row's value is the sum of those waits. A wait is counted in the interval in which it ends. ``period`` is 0 while
every wait is counted. Where more than ``most_per_s`` waits end in a second, the next interval is sampled by time: a
wait of at least ``period`` still counts in full, a shorter one with the probability wait / period, and then as a
whole period. So sums stay right on average, and long waits exact.

How: ``sched_switch`` runs in the thread that leaves, whose stack nobody needs when the wait turns out short, and cannot
walk the user stack of the thread that comes. So a switch only writes down when a thread left (one slot of an array,
by tid). When a thread comes back after more than the threshold, an interrupt is raised on its CPU (the wake-up of a
ring buffer that carries nothing), which arrives as soon as the scheduler turns interrupts on: in that thread's own
context, still inside the ``schedule()`` that it waited in, both its stacks as they were. The program at
``irq_vectors:irq_work_entry`` takes them there. The frames down to ``__schedule``, and the
``schedule`` and ``schedule_timeout`` that every wait passes, are taken off, so that the leaf says what it waits for.

Where the C library has no frame pointers, the function that called it is missing between it and its own caller.

Does not measure: kernel threads; stopped or traced threads; waits that began before the start or do not end; time
runnable but preempted (that is run queue latency); a thread that is switched out again before the interrupt comes
(some in a thousand), and one that shares its slot with another thread that left later: both are counted as lost.
So is a wait whose interrupt coincides with one of another CPU with the same number modulo 4.
Needs the tracepoint ``irq_vectors:irq_work_entry`` (x86). On a PREEMPT_RT kernel the interrupt may come late: lost.

A wait is measured by the scheduler's clock, to some microseconds.

Costs: 0.1 microseconds a context switch; for a wait that is taken, on a virtual machine, 6 to 12 for the
interrupt (it leaves the guest) and 10 to 14 for two stack walks. ``set_threshold`` and ``most_per_s`` bound it.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from collectors.base import Batch, WorkloadResolver
from collectors.bpf import fields
from collectors.bpf.kernel import thread_slots
from collectors.bpf.loader import load
from collectors.bpf.ringbuf import RingBuffer
from collectors.loaded import Loaded
from collectors.stack_count import CONTROL_PERIOD, CONTROL_THRESHOLD, FRAMES, Drained, StackCounts, entries
from collectors.symbols import Symbolizer
from collectors.wanted import Wanted
from streams.schema.errors import UsageError

if TYPE_CHECKING:
    from collectors.catalogue import Shared
    from collectors.settings import AgentOptions

DEFAULT_THRESHOLD_NS = 1_000_000
_LONGEST_PERIOD_NS = 1_000_000_000
_KICK_PAGES = 16
_KICKS = 4
_WAITS_PER_SECOND = 400
# How a wait enters the scheduler (kernel/sched/core.c, kernel/time): says nothing of what is waited for.
_DOORS = frozenset(
    {
        "schedule", "schedule_timeout", "schedule_preempt_disabled", "schedule_hrtimeout_range",
        "schedule_hrtimeout_range_clock", "io_schedule", "io_schedule_timeout",
    }
)  # fmt: skip
_INTERRUPT_FRAMES = 5  # where names cannot be read: interrupt entry, finish_task_switch, __schedule


class OffCpu(Loaded):
    """The ``offcpu`` profile. ``set_threshold`` may be called from any thread."""

    name = "offcpu"
    schema = "profile"

    def __init__(
        self,
        workloads: WorkloadResolver,
        symbolizer: Symbolizer | None = None,
        threshold_ns: int = DEFAULT_THRESHOLD_NS,
        interval_s: float = 10.0,
        most_per_s: float = 200.0,
        wanted: Wanted | None = None,
    ) -> None:
        self._workloads = workloads
        self._symbolizer = symbolizer or Symbolizer()
        self._own_symbolizer = symbolizer is None
        self._threshold_ns = _checked(threshold_ns)
        self._interval_s = interval_s
        self._wanted = wanted or Wanted()
        self._most_per_s = most_per_s
        self._period_ns = 0
        self._rate = 0.0
        self._drained_s = 0.0
        self._counts: StackCounts | None = None
        self._kicks: list[RingBuffer] = []
        self._names: dict[int, str] = {}

    @classmethod
    def make(cls, shared: Shared, wanted: Wanted | None = None) -> Self:
        """Make it as the agent runs it, or a live gadget that counts one process only."""
        options = shared.options
        threshold_ns = round(options.offcpu_threshold_ms * 1e6)
        most = options.offcpu_most_per_s
        return cls(shared.workloads, shared.symbolizer, threshold_ns, options.interval_s, most, wanted)

    def relieve(self, options: AgentOptions, effort: float) -> None:
        """Do only this share of the full effort."""
        self.set_most_per_s(options.offcpu_most_per_s * effort)

    @property
    def threshold_ns(self) -> int:
        """Waits below this are not counted."""
        return self._threshold_ns

    def set_threshold(self, threshold_ns: int) -> None:
        """Count only waits of at least this many nanoseconds, from now on.

        Raises:
            UsageError: it is below 1 microsecond.
        """
        self._threshold_ns = _checked(threshold_ns)
        if self._counts is not None:
            self._counts.set_control(CONTROL_THRESHOLD, threshold_ns)

    def set_most_per_s(self, most: float) -> None:
        """Take at most about this many waits a second; where more end, it samples by time from now on."""
        self._most_per_s = most
        if self._rate > most:
            self._apply_period()

    def start(self) -> None:
        """Load and attach.

        Raises:
            KernelError: something is missing here; the message says what.
        """
        room = entries(_WAITS_PER_SECOND * self._interval_s)
        defines = {"STACKS": room, "FRAMES": FRAMES, "SLOTS": thread_slots(), "KICK_PAGES": _KICK_PAGES}
        self._programs = load("offcpu.bpf.c", defines | self._wanted.defines(), offsets=fields.TASK | fields.SCHEDULER)
        self._wanted.tell(self._programs)
        self._kicks = [RingBuffer(self._programs.maps[f"kick_{n}"], np.dtype("<u8")) for n in range(_KICKS)]
        self._counts = StackCounts(self._programs, self._symbolizer, self._workloads, self._empty_kicks)
        self._counts.set_control(CONTROL_THRESHOLD, self._threshold_ns)
        self._programs.attach()
        self._drained_s = time.monotonic()

    def collect(self, start_ns: int, end_ns: int) -> Batch:  # noqa: ARG002 - the protocol's arguments
        """Return what was counted since the last call, as rows of the interval that starts at ``start_ns``."""
        assert self._counts is not None
        period = self._period_ns
        drained = self._counts.drain(self._empty_kicks)
        self._set_period(int(drained.values["count"].sum(dtype=np.uint64)))
        trimmed = Drained(
            drained.keys,
            drained.values,
            drained.users,
            [self._without_interrupt(stack) for stack in drained.kernels],
            drained.lost,
        )
        return self._counts.batch(trimmed, drained.values["sum"].astype(np.int64), "offcpu", period, start_ns)

    def _empty_kicks(self) -> None:
        for kick in self._kicks:
            kick.read()

    def _set_period(self, waits: int) -> None:
        """Choose the period of the interval that has begun from the rate in the one that has ended."""
        assert self._counts is not None
        now = time.monotonic()
        self._rate = waits / max(now - self._drained_s, 0.1)
        self._drained_s = now
        self._apply_period()

    def _apply_period(self) -> None:
        assert self._counts is not None
        if (period := self._next_period(self._rate)) != self._period_ns:
            self._period_ns = period
            self._counts.set_control(CONTROL_PERIOD, period)

    def _next_period(self, rate: float) -> int:
        if rate > self._most_per_s:
            # As if all waits were shorter than the period; if some are longer, the next interval goes on.
            times = 1 << max(1, math.ceil(math.log2(rate / self._most_per_s)))
            return min(max(self._period_ns, self._threshold_ns) * times, _LONGEST_PERIOD_NS)
        if rate < self._most_per_s / 4:
            return self._period_ns // 2 if self._period_ns > 2 * self._threshold_ns else 0
        return self._period_ns

    def _without_interrupt(self, stack: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Take off the frames of our own interrupt and of the scheduler: what is left begins with what it waits in."""
        names = [self._kernel_name(address) for address in stack[:24].tolist()]
        if "__schedule" not in names:
            return stack if self._symbolizer.kernel.available else stack[_INTERRUPT_FRAMES:]
        depth = names.index("__schedule") + 1
        while depth < len(names) and names[depth] in _DOORS:
            depth += 1
        # A stack must not become empty: a thread that does nothing but wait in the scheduler keeps its door.
        return stack[min(depth, len(stack) - 1) :]

    def _kernel_name(self, address: int) -> str:
        known = self._names.get(address)
        if known is None:
            if len(self._names) > 4096:
                self._names.clear()
            known = self._names[address] = self._symbolizer.kernel.names(np.array([address], np.uint64))[0][0]
        return known

    def close(self) -> None:
        """Detach and free everything. May be called twice."""
        if self._counts is not None:
            self._counts.close()
        for kick in self._kicks:
            kick.close()
        self._kicks = []
        super().close()
        if self._own_symbolizer:
            self._symbolizer.close()
        self._counts = None


def _checked(threshold_ns: int) -> int:
    if threshold_ns < 1000:
        raise UsageError(f"an off-CPU threshold of {threshold_ns} ns is below 1 microsecond")
    return threshold_ns
