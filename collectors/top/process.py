"""Processes by what they used in the interval: CPU, memory, disk, context switches.

Measures the growth of what ``/proc`` tells between two looks. CPU in steps of 10 ms; ``read_bytes`` and
``written_bytes`` are what the process caused at the storage, not what it read from the page cache; context switches are
the sum over its threads. Not: processes that began and ended between two looks, and what a process or thread did
between the last look and its end. Cost: no programs; 0.1 ms of user CPU for each process and 20 microseconds for each
thread, an interval.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pyarrow as pa

from collectors.base import CommOnly, WorkloadResolver
from collectors.processes import PROC, Process, numbers, processes
from collectors.top.base import WHO, WithoutPrograms, schema, who

if TYPE_CHECKING:
    from collectors.catalogue import Shared
    from collectors.wanted import Wanted

_IO = (b"read_bytes", b"write_bytes")
_SWITCHES = (b"voluntary_ctxt_switches", b"nonvoluntary_ctxt_switches")


@dataclass(frozen=True, slots=True)
class _Look:
    process: Process
    io: tuple[int, ...]
    switches: dict[str, tuple[int, ...]]


class TopProcess(WithoutPrograms):
    """One row for each process that lives."""

    name = "top_process"
    columns = schema(
        ("cpu_percent", pa.float64()),
        ("user_ns", pa.uint64()),
        ("system_ns", pa.uint64()),
        ("rss_bytes", pa.uint64()),
        ("threads", pa.uint32()),
        ("read_bytes", pa.uint64()),
        ("written_bytes", pa.uint64()),
        ("switches", pa.uint64()),
        ("involuntary_switches", pa.uint64()),
    )
    shown = (
        "service", "pid", "comm", "cpu_percent", "user_ns", "system_ns", "rss_bytes", "threads", "read_bytes",
        "written_bytes", "switches",
    )  # fmt: skip
    sort = "cpu_percent"
    sums = tuple(columns.names[len(WHO) :])
    counted: ClassVar[tuple[str, ...]] = ()
    detail: ClassVar[tuple[str, ...]] = ()

    def __init__(self, workloads: WorkloadResolver | None = None, proc: Path = PROC) -> None:
        self._workloads: WorkloadResolver = workloads or CommOnly()
        self._proc = proc
        self._before: dict[int, _Look] = {}

    @classmethod
    def make(cls, shared: Shared, wanted: Wanted | None = None) -> Self:  # noqa: ARG003 - filtered where it is shown
        """Make it."""
        return cls(shared.workloads)

    def start(self) -> None:
        """Take the first look."""
        self._before = self._look()

    def _look(self) -> dict[int, _Look]:
        found = {}
        for each in processes(self._proc):
            directory = f"{self._proc}/{each.pid}"
            threads: list[str] = []
            with suppress(OSError):
                threads = os.listdir(f"{directory}/task")  # noqa: PTH208 - names, not paths
            switches = {tid: numbers(f"{directory}/task/{tid}/status", _SWITCHES) for tid in threads}
            found[each.pid] = _Look(each, numbers(f"{directory}/io", _IO), switches)
        return found

    def collect(self, seconds: float) -> pa.RecordBatch:
        """Return what each process used since the last call."""
        before, self._before = self._before, self._look()
        now = list(self._before.values())
        used = np.array([_growth(each, before.get(each.process.pid)) for each in now], np.int64).reshape(-1, 6)
        used = np.maximum(used, 0).astype(np.uint64)
        pids = np.array([each.process.pid for each in now], np.uint32)
        uids = np.array([each.process.uid for each in now], np.uint32)
        comms = [each.process.comm for each in now]
        arrays = who(self._workloads, pids, np.zeros(len(now), np.uint64), uids, comms) | {
            "cpu_percent": pa.array((used[:, 0] + used[:, 1]) / 1e9 / seconds * 100),
            "user_ns": pa.array(used[:, 0].copy()),
            "system_ns": pa.array(used[:, 1].copy()),
            "rss_bytes": pa.array([each.process.rss_bytes for each in now], pa.uint64()),
            "threads": pa.array([each.process.threads for each in now], pa.uint32()),
            "read_bytes": pa.array(used[:, 2].copy()),
            "written_bytes": pa.array(used[:, 3].copy()),
            "switches": pa.array(used[:, 4] + used[:, 5]),
            "involuntary_switches": pa.array(used[:, 5].copy()),
        }
        return pa.RecordBatch.from_arrays([arrays[each.name] for each in self.columns], schema=self.columns)

    def close(self) -> None:
        """Forget what was seen."""
        self._before = {}


def _growth(now: _Look, before: _Look | None) -> tuple[int, ...]:
    """Return (user, system, read, written, voluntary, involuntary) since the last look; all of it of a new process."""
    if before is not None and before.process.started_ticks != now.process.started_ticks:
        before = None
    was = before.process if before else None
    io = before.io if before else (0, 0)
    earlier = before.switches if before else {}
    switches = [sum(count[at] - earlier.get(tid, (0, 0))[at] for tid, count in now.switches.items()) for at in range(2)]
    return (
        now.process.user_ns - (was.user_ns if was else 0),
        now.process.system_ns - (was.system_ns if was else 0),
        now.io[0] - io[0],
        now.io[1] - io[1],
        *switches,
    )
