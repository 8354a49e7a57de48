"""CPU time by stack, on all CPUs, all the time.

Measures: what runs on each CPU at each tick of a software clock (49 Hz by default, so that it does not beat with
things that happen 50 or 100 times a second), user and kernel stack, counted in the kernel. A row's value is samples
times the true period: an estimate of CPU nanoseconds whose standard error is about 1/sqrt(samples).

Does not measure: the idle task; code with interrupts off is seen when they come on again, at that place; user stacks
of code built without frame pointers end after a frame or two; CPUs that come online later. Processes of the collector
``python`` show its stacks in place of these.

Costs: 5 to 15 microseconds of kernel time a sample, 0.1 % of a core at 49 Hz; 0.2 ms of user CPU for each distinct
stack of an interval, and 0.2 s once, to read the kernel's symbols.
Lost samples (no room for another stack) are counted.
"""

from __future__ import annotations

import fcntl
import struct
from typing import TYPE_CHECKING, Self

import numpy as np

from collectors.base import Batch, WorkloadResolver
from collectors.bpf import kernel
from collectors.bpf.loader import load
from collectors.interpreted import Interpreted
from collectors.loaded import Loaded
from collectors.settings import DEFAULT_HZ
from collectors.stack_count import FRAMES, StackCounts, entries
from collectors.symbols import Symbolizer
from collectors.wanted import Wanted
from streams.schema.errors import UsageError

if TYPE_CHECKING:
    from collectors.catalogue import Shared
    from collectors.settings import AgentOptions

MIN_HZ, MAX_HZ = 1.0, 1000.0
_IOC_PERIOD = 0x40082404  # PERF_EVENT_IOC_PERIOD


class ProfileCpu(Loaded):
    """The ``cpu`` profile. ``set_frequency`` may be called from any thread."""

    name = "profile_cpu"
    schema = "profile"

    def __init__(
        self,
        workloads: WorkloadResolver,
        symbolizer: Symbolizer | None = None,
        frequency_hz: float = DEFAULT_HZ,
        interval_s: float = 10.0,
        interpreted: Interpreted | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self._workloads = workloads
        self._symbolizer = symbolizer or Symbolizer()
        self._own_symbolizer = symbolizer is None
        self._interval_s = interval_s
        self._wanted = wanted or Wanted()
        self._interpreted = interpreted or Interpreted()
        self._period_ns = _period(frequency_hz)
        self._wanted_ns = self._period_ns
        self._most_hz = frequency_hz
        self._counts: StackCounts | None = None
        self._events: list[int] = []

    @classmethod
    def make(cls, shared: Shared, wanted: Wanted | None = None) -> Self:
        """Make it as the agent runs it, or a live gadget that counts one process only."""
        options = shared.options
        return cls(shared.workloads, shared.symbolizer, options.cpu_hz, options.interval_s, shared.interpreted, wanted)

    def relieve(self, options: AgentOptions, effort: float) -> None:
        """Do only this share of the full effort."""
        self.set_frequency(max(MIN_HZ, options.cpu_hz * effort))

    @property
    def frequency_hz(self) -> float:
        """The rate that samples are taken at now."""
        return 1e9 / self._period_ns

    def set_frequency(self, hz: float) -> None:
        """Sample at another rate from the next interval on, so that one interval has one period.

        Raises:
            UsageError: not between 1 and 1000 Hz.
        """
        self._wanted_ns = _period(hz)

    def start(self) -> None:
        """Load and attach.

        Raises:
            KernelError: something is missing here; the message says what.
        """
        cpus = len(kernel.online_cpus())
        room = entries(self._most_hz * self._interval_s * cpus)
        self._programs = load("profile_cpu.bpf.c", {"STACKS": room, "FRAMES": FRAMES} | self._wanted.defines())
        self._wanted.tell(self._programs)
        self._counts = StackCounts(self._programs, self._symbolizer, self._workloads)
        self._events = self._programs.attach_perf_event("perf_event__cpu_clock", period=self._period_ns)

    def collect(self, start_ns: int, end_ns: int) -> Batch:
        """Return what was counted since the last call, as rows of the interval that starts at ``start_ns``."""
        assert self._counts is not None
        period = self._period_ns
        drained = self._counts.drain(self._apply_frequency)
        used_ns = drained.values["count"].astype(np.int64) * period
        until_ns = end_ns + round(self._interval_s * 1e9)
        seen = self._interpreted.exchange(drained.keys["tgid"], used_ns, until_ns)
        return self._counts.batch(drained, used_ns, "cpu", period, start_ns, seen)

    def _apply_frequency(self) -> None:
        if self._wanted_ns != self._period_ns:
            self._period_ns = self._wanted_ns
            for fd in self._events:
                fcntl.ioctl(fd, _IOC_PERIOD, struct.pack("<Q", self._period_ns))

    def close(self) -> None:
        """Detach and free everything. May be called twice."""
        if self._counts is not None:
            self._counts.close()
        super().close()
        if self._own_symbolizer:
            self._symbolizer.close()
        self._counts = None


def _period(hz: float) -> int:
    if not MIN_HZ <= hz <= MAX_HZ:
        raise UsageError(f"a sampling rate of {hz} Hz is not between {MIN_HZ:g} and {MAX_HZ:g}")
    return round(1e9 / hz)
