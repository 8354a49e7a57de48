"""Every loaded BPF program, this tool's own and everybody else's: how often it ran, how long, its memory, its owner.

Measures by the kernel's own account, which is kept while this runs; that adds 30 to 80 ns to every run of every program
(an empty one then shows some 50 ns). ``memory_bytes`` is the program's code; ``map_bytes`` all of its maps, which
programs may share. The owner is the process with the lowest number that holds a descriptor of it; pinned programs, and
those that the kernel keeps for a cgroup or an interface, have none (pid 0). Cost: some 10 ms of user CPU an interval,
more where processes hold many files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pyarrow as pa

from collectors.base import CommOnly, WorkloadResolver
from collectors.bpf import inventory, kernel
from collectors.bpf.kernel import RunStats
from collectors.top.base import WithoutPrograms, schema, who
from streams.schema.errors import KernelError

if TYPE_CHECKING:
    from collectors.catalogue import Shared
    from collectors.wanted import Wanted


class TopEbpf(WithoutPrograms):
    """One row for each program."""

    name = "top_ebpf"
    columns = schema(
        ("program", pa.string()),
        ("type", pa.string()),
        ("id", pa.uint32()),
        ("run_time_ns", pa.uint64()),
        ("runs", pa.uint64()),
        ("cpu_percent", pa.float64()),
        ("mean_ns", pa.float64()),
        ("missed", pa.uint64()),
        ("memory_bytes", pa.uint64()),
        ("map_bytes", pa.uint64()),
        ("maps", pa.uint32()),
        ("pids", pa.string()),
    )
    shown = (
        "id", "type", "program", "pid", "comm", "run_time_ns", "runs", "mean_ns", "cpu_percent", "memory_bytes",
        "map_bytes",
    )  # fmt: skip
    sort = "run_time_ns"
    sums = ("run_time_ns", "runs", "cpu_percent", "missed", "memory_bytes", "map_bytes", "maps")
    counted: ClassVar[tuple[str, ...]] = ()
    detail = ("program",)

    def __init__(self, workloads: WorkloadResolver | None = None, proc: Path = Path("/proc")) -> None:
        self._workloads: WorkloadResolver = workloads or CommOnly()
        self._proc = proc
        self._account = -1
        self._before: dict[int, RunStats] = {}
        self._owners: dict[int, list[int]] = {}
        self._map_bytes: dict[int, int] = {}

    @classmethod
    def make(cls, shared: Shared, wanted: Wanted | None = None) -> Self:  # noqa: ARG003 - rows are few: filtered here
        """Make it."""
        return cls(shared.workloads)

    def start(self) -> None:
        """Have the kernel keep its account, and take the first look.

        Raises:
            KernelError: not permitted.
        """
        try:
            self._account = kernel.enable_stats()
        except OSError as error:
            raise KernelError(f"cannot count the run time of BPF programs: {error.strerror}; run as root") from error
        self._look()

    def _look(self) -> list[inventory.Program]:
        now = list(inventory.programs())
        if {each.number for each in now} != self._before.keys():
            self._owners = inventory.owners(self._proc)
        self._before = {each.number: each.stats for each in now}
        wanted = {number for each in now for number in each.map_ids}
        self._map_bytes = {
            number: self._map_bytes.get(number) or inventory.map_bytes(number) for number in sorted(wanted)
        }
        return now

    def collect(self, seconds: float) -> pa.RecordBatch:
        """Return what each program did since the last call."""
        before = self._before
        now = self._look()
        nothing = RunStats()
        held = [self._owners.get(each.number, []) for each in now]
        pids = np.array([pids[0] if pids else 0 for pids in held], np.uint32)
        earlier = [before.get(each.number, nothing) for each in now]
        took = np.array([a.stats.run_time_ns - b.run_time_ns for a, b in zip(now, earlier, strict=True)], np.uint64)
        runs = np.array([a.stats.run_cnt - b.run_cnt for a, b in zip(now, earlier, strict=True)], np.uint64)
        uids = np.array([each.uid for each in now], np.uint32)
        arrays = who(self._workloads, pids, np.zeros(len(now), np.uint64), uids, [self._comm(pid) for pid in pids])
        arrays |= {
            "program": pa.array([each.name for each in now], pa.string()),
            "type": pa.array([each.kind for each in now], pa.string()),
            "id": pa.array([each.number for each in now], pa.uint32()),
            "run_time_ns": pa.array(took),
            "runs": pa.array(runs),
            "cpu_percent": pa.array(took / 1e9 / seconds * 100),
            "mean_ns": pa.array(took / np.maximum(runs, 1)),
            "missed": pa.array([a.stats.missed - b.missed for a, b in zip(now, earlier, strict=True)], pa.uint64()),
            "memory_bytes": pa.array([each.memory_bytes for each in now], pa.uint64()),
            "map_bytes": pa.array([sum(self._map_bytes[m] for m in each.map_ids) for each in now], pa.uint64()),
            "maps": pa.array([len(each.map_ids) for each in now], pa.uint32()),
            "pids": pa.array([",".join(map(str, pids)) for pids in held], pa.string()),
        }
        return pa.RecordBatch.from_arrays([arrays[each.name] for each in self.columns], schema=self.columns)

    def _comm(self, pid: int) -> str:
        try:
            return (self._proc / str(pid) / "comm").read_text(errors="replace").rstrip("\n") if pid else ""
        except OSError:
            return ""

    def close(self) -> None:
        """Have the account closed, unless somebody else wants it."""
        if self._account >= 0:
            os.close(self._account)
            self._account = -1
