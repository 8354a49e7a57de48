"""Every collector and gadget, one line each: what it is, where its class is, what the agent may do about its cost.

Light: classes are imported when one is made, so that ``--help`` loads neither NumPy nor Arrow.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from collectors.budget import Lever
from collectors.interpreted import Interpreted
from streams.schema.errors import UsageError

if TYPE_CHECKING:
    from collectors.base import Collector, WorkloadResolver
    from collectors.settings import AgentOptions
    from collectors.symbols import Symbolizer


@dataclass(frozen=True, slots=True)
class Shared:
    """What the collectors of one agent have in common."""

    workloads: WorkloadResolver
    symbolizer: Symbolizer
    options: AgentOptions
    interpreted: Interpreted = field(default_factory=Interpreted)


@dataclass(frozen=True, slots=True)
class Entry:
    """One collector or gadget.

    ``where`` is ``module:Class`` below ``collectors``; the class has ``make(shared)``. ``verb`` is the gadget command
    that shows it live (``trace``, ``profile``, ``top``, ``snapshot``), "" when there is none; ``gadget`` its name
    there when that is another one, ``also`` a second name there. ``always_on``: the agent runs it unless told
    otherwise; the others only where ``agent.collectors`` names them or on demand. A class of an entry that ``scales``
    has ``relieve(options, effort)``, which gets the share (0 to 1) of its full effort; the agent stops those that have
    ``stops`` when nothing else keeps its budget.
    """

    name: str
    what: str
    where: str
    verb: str = ""
    gadget: str = ""
    always_on: bool = True
    scales: bool = False
    stops: bool = False
    also: str = ""

    @property
    def shown_as(self) -> str:
        """Return its name on the command line."""
        return self.gadget or self.name

    @property
    def lever(self) -> Lever:
        """Return what the budget may do about it."""
        return Lever(self.scales, self.stops)

    def load(self) -> Any:  # noqa: ANN401 - a class whose kind the verb says
        """Import its class."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(f"collectors.{module}"), name)

    def make(self, shared: Shared) -> Collector:
        """Make it as the agent runs it; nothing is loaded into the kernel yet."""
        made: Collector = self.load().make(shared)
        if self.verb in ("top", "snapshot"):
            from collectors.published_tables import published

            return published(self.verb, made)
        return made


ALL = (
    Entry(
        "profile_cpu", "CPU time by stack, sampled at 49 Hz", "profile.cpu:ProfileCpu", "profile", "cpu", scales=True
    ),
    Entry(
        "python",
        "Python functions in the CPU profile, by py-spy",
        "profile.python:PythonStacks",
        always_on=False,
        scales=True,
        stops=True,
    ),
    Entry(
        "offcpu", "time blocked by stack, waits over 1 ms", "profile.offcpu:OffCpu", "profile", scales=True, stops=True
    ),
    Entry(
        "runqlat", "wait for a CPU, by process", "profile.runqlat:RunQueueLatency", "profile", scales=True, stops=True
    ),
    Entry("blockio", "block I/O latency, by device and operation", "profile.blockio:BlockLatency", "profile"),
    Entry(
        "syscall",
        "system call latency, by call",
        "profile.syscalls:SyscallLatency",
        "profile",
        scales=True,
        stops=True,
        also="syscalls",
    ),
    Entry("tcprtt", "TCP round trips, by port", "profile.tcprtt:TcpRtt", "profile", scales=True, stops=True),
    Entry("softirq", "soft interrupts, by vector", "profile.softirq:SoftIrqLatency", "profile", scales=True),
    Entry("hardirq", "device interrupts, by number", "profile.hardirq:HardIrqLatency", "profile", scales=True),
    Entry("futex", "waits for locks, by outcome", "profile.futex:FutexLatency", "profile", "", False, scales=True),
    Entry("exec", "programs started, with result", "trace.exec:Exec", "trace"),
    Entry("exit", "processes ended, with status and life time", "trace.exit:Exit", "trace"),
    Entry("tcpconnect", "TCP connections opened, with latency and result", "trace.tcpconnect:TcpConnect", "trace"),
    Entry("tcpaccept", "TCP connections accepted, with waiting time", "trace.tcpaccept:TcpAccept", "trace"),
    Entry("tcp", "TCP connections' lives, with bytes each way", "trace.tcp:Tcp", "trace", always_on=False),
    Entry("tcpretrans", "TCP segments sent again, and whose", "trace.tcpretrans:TcpRetransmit", "trace"),
    Entry("tcpdrop", "TCP packets dropped, with the kernel's reason", "trace.tcpdrop:TcpDrop", "trace"),
    Entry("dns", "DNS questions, their answers and who asked", "trace.dns:Dns", "trace", always_on=False),
    Entry("ssl", "calls of OpenSSL: bytes, latency, handshakes", "trace.ssl:Ssl", "trace", always_on=False),
    Entry("oomkill", "processes killed for want of memory", "trace.oomkill:OomKill", "trace"),
    Entry("open", "files opened, with flags and result", "trace.open:Open", "trace", always_on=False),
    Entry("bind", "addresses that sockets are bound to", "trace.bind:Bind", "trace"),
    Entry("mount", "file systems mounted, moved and unmounted", "trace.mount:Mount", "trace"),
    Entry(
        "capabilities",
        "capabilities asked for, by process",
        "trace.capabilities:Capabilities",
        "trace",
        always_on=False,
    ),
    Entry("fsslower", "slow reads, writes, opens, fsyncs", "trace.fsslower:FsSlower", "trace", always_on=False),
    Entry("signal", "signals sent, with target and outcome", "trace.signal:Signal", "trace", always_on=False),
    *(
        # The agent stops them where nothing else keeps its budget: there is nothing to do less of.
        Entry(f"{verb}_{gadget}", what, where, verb, gadget, always_on=False, stops=True)
        for verb, gadget, what, where in (
            ("top", "ebpf", "BPF programs: run time, memory, owner", "top.ebpf:TopEbpf"),
            ("top", "process", "processes: CPU, memory, disk", "top.process:TopProcess"),
            ("top", "file", "reads and writes, by process and file", "top.file:TopFile"),
            ("top", "tcp", "bytes by process and TCP connection", "top.tcp:TopTcp"),
            ("top", "blockio", "block I/O by process", "top.blockio:TopBlockIo"),
            ("top", "syscalls", "system calls by process", "top.syscalls:TopSyscalls"),
            ("snapshot", "process", "processes now", "snapshot.process:SnapshotProcess"),
            ("snapshot", "socket", "TCP and UDP sockets now", "snapshot.socket:SnapshotSocket"),
        )
    ),
)
BY_NAME = {entry.name: entry for entry in ALL}


def of_verb(verb: str) -> dict[str, Entry]:
    """Return the gadgets of one command by the names that it knows them under."""
    return {name: entry for entry in ALL if entry.verb == verb for name in (entry.shown_as, entry.also) if name}


def chosen(names: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return the collectors of these names; ``default`` or no name is those that are always on, ``none`` is none.

    Raises:
        UsageError: there is no collector of a name.
    """
    if names == ("none",):
        return ()
    usual = tuple(entry for entry in ALL if entry.always_on)
    unknown = [name for name in names if name not in BY_NAME and name != "default"]
    if unknown:
        raise UsageError(f"there is no collector {unknown[0]!r}; there are: {', '.join(BY_NAME)}, default, or none")
    named = (entry for name in names for entry in (usual if name == "default" else (BY_NAME[name],)))
    return tuple(dict.fromkeys(named)) or usual


def measurable(names: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return the gadgets of these names that run for a while (all but snapshots); those always on when none is given.

    Raises:
        UsageError: there is no such gadget.
    """
    known = {name: entry for name, entry in BY_NAME.items() if entry.verb != "snapshot"}
    shown = {name: entry for verb in ("trace", "profile") for name, entry in of_verb(verb).items()}
    unknown = [name for name in names if name not in known and name not in shown]
    if unknown:
        raise UsageError(f"there is no gadget {unknown[0]!r} that runs; there are: {', '.join(known)}")
    named = tuple(dict.fromkeys(known.get(name) or shown[name] for name in names))
    return named or tuple(entry for entry in known.values() if entry.always_on)
