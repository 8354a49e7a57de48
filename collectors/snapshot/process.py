"""Every process that there is now: who it is of, since when, how many threads, what it runs.

Not: threads by themselves, and processes that begin or end while it is taken. The arguments are read only when asked
for: they may hold secrets. Cost: 0.2 ms of user CPU for each process, once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.base import WorkloadResolver
from collectors.processes import PROC, TICK_NS, processes
from collectors.table_rows import weights
from collectors.top.base import schema, who

if TYPE_CHECKING:
    from collectors.catalogue import Shared

_LONGEST = 4096
_STATES = {
    "R": "running", "S": "sleeping", "D": "uninterruptible", "T": "stopped", "t": "traced", "Z": "zombie", "X": "dead",
    "I": "idle", "P": "parked",
}  # fmt: skip


class SnapshotProcess:
    """One row for each process, by number."""

    name = "snapshot_process"
    columns = schema(
        ("ppid", pa.uint32()),
        ("state", pa.string()),
        ("threads", pa.uint32()),
        ("started", pa.string()),
        ("rss_bytes", pa.uint64()),
        ("executable", pa.string()),
        ("arguments", pa.string()),
    )
    shown: ClassVar[tuple[str, ...]] = (
        "service", "pid", "ppid", "uid", "comm", "state", "threads", "rss_bytes", "started", "executable",
    )  # fmt: skip
    sums = ("threads", "rss_bytes")
    detail = ("executable",)

    def __init__(self, workloads: WorkloadResolver, *, arguments: bool = False, proc: Path = PROC) -> None:
        self._workloads, self._arguments, self._proc = workloads, arguments, proc

    @classmethod
    def make(cls, shared: Shared) -> Self:
        """Make it as the agent takes it."""
        return cls(shared.workloads)

    @staticmethod
    def weight(rows: pa.RecordBatch) -> NDArray[np.float64]:
        """Return which rows are kept where not all are: those with the most memory."""
        return weights(rows, "rss_bytes")

    def take(self) -> pa.RecordBatch:
        """Return the rows; without ``arguments`` unless they were asked for."""
        found = list(processes(self._proc))
        pids = np.array([each.pid for each in found], np.uint32)
        uids = np.array([each.uid for each in found], np.uint32)
        booted = self._booted()
        arrays = who(self._workloads, pids, np.zeros(len(found), np.uint64), uids, [each.comm for each in found])
        arrays |= {
            "ppid": pa.array([each.ppid for each in found], pa.uint32()),
            "state": pa.array([_STATES.get(each.state, each.state) for each in found], pa.string()),
            "threads": pa.array([each.threads for each in found], pa.uint32()),
            "started": pa.array([_started(booted, each.started_ticks) for each in found], pa.string()),
            "rss_bytes": pa.array([each.rss_bytes for each in found], pa.uint64()),
            "executable": pa.array([self._executable(each.pid) for each in found], pa.string()),
        }
        if self._arguments:
            arrays["arguments"] = pa.array([self._command_line(each.pid) for each in found], pa.string())
        columns = [each for each in self.columns if each.name in arrays]
        return pa.RecordBatch.from_arrays([arrays[each.name] for each in columns], schema=pa.schema(columns))

    def _booted(self) -> int:
        """Return when the machine was booted, in Unix seconds."""
        for line in (self._proc / "stat").read_text().splitlines():
            if line.startswith("btime "):
                return int(line.split()[1])
        return 0

    def _executable(self, pid: int) -> str:
        with suppress(OSError):
            path = os.readlink(f"{self._proc}/{pid}/exe")  # noqa: PTH115 - a Path would change what the kernel says
            return os.fsencode(path).decode(errors="replace")
        return ""

    def _command_line(self, pid: int) -> str:
        with suppress(OSError), (self._proc / str(pid) / "cmdline").open("rb") as file:
            return file.read(_LONGEST).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        return ""


def _started(booted: int, ticks: int) -> str:
    at = datetime.fromtimestamp(booted, UTC) + timedelta(microseconds=ticks * TICK_NS // 1000)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
