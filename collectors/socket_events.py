"""The common part of events about sockets that happen while their process does not run: timers, arriving packets."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.base import WorkloadResolver
from collectors.events import EventCollector
from collectors.gadget.filters import Filters
from collectors.socket_owners import SocketOwners
from collectors.wanted import Wanted


class SocketEvents(EventCollector):
    """Base of collectors whose records hold a socket's inode, at ``inode_at`` of the detail, and no process.

    The process is found afterwards; so conditions on it are looked at here and not in the kernel. Its cgroup and its
    user are the socket's own and known even when it is not found.
    """

    inode_at: ClassVar[int]

    def __init__(
        self,
        workloads: WorkloadResolver | None = None,
        *,
        cache: Path | None = None,
        ring_bytes: int | None = None,
        wanted: Wanted | None = None,
        owners: SocketOwners | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        asked = wanted or Wanted()
        known = replace(asked, pid=None, comm="")
        super().__init__(workloads, cache=cache, ring_bytes=ring_bytes, wanted=known)
        self._late = Filters(pid=asked.pid, comm=asked.comm)
        self._owners = owners or SocketOwners(proc)
        self._proc = proc

    def observe(self, records: NDArray[Any]) -> None:
        """Find whose sockets these are, then let the resolver look at the processes."""
        inodes = self._inodes(records)
        found = self._owners.find(np.unique(inodes).tolist())
        for inode, pid in found.items():
            mine = inodes == inode
            records["pid"][mine] = pid
            records["ppid"][mine], records["comm"][mine] = self._who(pid)
        super().observe(records[records["pid"] > 0])

    def _inodes(self, records: NDArray[Any]) -> NDArray[np.uint64]:
        raw = np.frombuffer(records["detail"].tobytes(), np.uint8).reshape(len(records), self.detail_bytes)
        return np.ascontiguousarray(raw[:, self.inode_at : self.inode_at + 8]).view(np.uint64)[:, 0]

    def _who(self, pid: int) -> tuple[int, bytes]:
        try:
            head, _, rest = (self._proc / str(pid) / "stat").read_bytes().rpartition(b") ")
        except OSError:
            return 0, b""
        return int(rest.split()[1]), head.partition(b"(")[2][:15]

    def rows(self, records: NDArray[Any]) -> pa.RecordBatch:
        """Return the contract's rows of those records whose process is wanted."""
        return self._late.apply(super().rows(records))


def table(text: str) -> dict[int, str]:
    """Return the names of numbers in a tracepoint's print format (``{ 2, "NAME" }``)."""
    return {int(number): name for number, name in re.findall(r'\{\s*(\d+),\s*"(\w+)"\s*\}', text)}
