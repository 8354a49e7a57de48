"""Every collector, one line each: what it is, what it asks of the node, how the agent makes and relieves it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from collectors.base import Collector, WorkloadResolver
from collectors.blockio import BlockLatency
from collectors.budget import Lever
from collectors.events import EventCollector
from collectors.exec import Exec
from collectors.exit import Exit
from collectors.histograms import HistogramCollector
from collectors.offcpu import OffCpu
from collectors.oomkill import OomKill
from collectors.profile_cpu import MIN_HZ, ProfileCpu
from collectors.runqlat import RunQueueLatency
from collectors.settings import AgentOptions
from collectors.symbols import Symbolizer
from collectors.syscalls import SyscallLatency
from collectors.tcpaccept import TcpAccept
from collectors.tcpconnect import TcpConnect
from streams.schema.errors import UsageError


@dataclass(frozen=True, slots=True)
class Shared:
    """What the collectors of one agent have in common."""

    workloads: WorkloadResolver
    symbolizer: Symbolizer
    options: AgentOptions


Relieve = Callable[[Collector, AgentOptions, float], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One collector.

    ``verb`` is the gadget command that shows it live, "" when there is none. ``relieve`` makes it cheaper: it gets the
    share (0 to 1) of its full effort. The agent stops those that have ``stops`` when nothing else keeps its budget.
    """

    name: str
    what: str
    make: Callable[[Shared], Collector]
    verb: str = ""
    relieve: Relieve | None = None
    stops: bool = False

    @property
    def lever(self) -> Lever:
        """Return what the budget may do about it."""
        return Lever(self.relieve is not None, self.stops)


def _cpu(shared: Shared) -> Collector:
    options = shared.options
    return ProfileCpu(shared.workloads, shared.symbolizer, options.cpu_hz, options.interval_s)


def _slower(collector: Collector, options: AgentOptions, effort: float) -> None:
    assert isinstance(collector, ProfileCpu)
    collector.set_frequency(max(MIN_HZ, options.cpu_hz * effort))


def _offcpu(shared: Shared) -> Collector:
    options = shared.options
    threshold_ns = round(options.offcpu_threshold_ms * 1e6)
    return OffCpu(shared.workloads, shared.symbolizer, threshold_ns, options.interval_s, options.offcpu_most_per_s)


def _fewer(collector: Collector, options: AgentOptions, effort: float) -> None:
    assert isinstance(collector, OffCpu)
    collector.set_most_per_s(options.offcpu_most_per_s * effort)


def _sampled(collector: Collector, options: AgentOptions, effort: float) -> None:  # noqa: ARG001 - of every lever
    # What an event costs before it is taken or not remains, so that half the effort means a quarter of the events.
    assert isinstance(collector, HistogramCollector)
    collector.set_sampling(round(-2 * math.log2(effort)))


def _histogram(kind: type[HistogramCollector]) -> Callable[[Shared], Collector]:
    return lambda shared: kind(shared.workloads)


def _events(kind: type[EventCollector]) -> Callable[[Shared], Collector]:
    return lambda shared: kind(shared.workloads)


ALL = (
    Entry("profile_cpu", "CPU time by stack, sampled at 49 Hz", _cpu, relieve=_slower),
    Entry("offcpu", "time blocked by stack, waits of 1 ms and more", _offcpu, relieve=_fewer, stops=True),
    Entry("runqlat", "wait for a CPU, by process", _histogram(RunQueueLatency), "profile", _sampled, stops=True),
    Entry("blockio", "block I/O latency, by device and operation", _histogram(BlockLatency), "profile"),
    Entry("syscall", "system call latency, by call", _histogram(SyscallLatency), "profile", _sampled, stops=True),
    Entry("exec", "programs started, with result", _events(Exec), "trace"),
    Entry("exit", "processes ended, with status and life time", _events(Exit), "trace"),
    Entry("tcpconnect", "TCP connections opened, with latency and result", _events(TcpConnect), "trace"),
    Entry("tcpaccept", "TCP connections accepted, with waiting time", _events(TcpAccept), "trace"),
    Entry("oomkill", "processes killed for want of memory", _events(OomKill), "trace"),
)
BY_NAME = {entry.name: entry for entry in ALL}


def chosen(names: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return the entries of these names; all when none is given, none for ``none``.

    Raises:
        UsageError: there is no collector of a name.
    """
    if names == ("none",):
        return ()
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UsageError(f"there is no collector {unknown[0]!r}; there are: {', '.join(BY_NAME)}, or none")
    return tuple(BY_NAME[name] for name in dict.fromkeys(names)) or ALL
