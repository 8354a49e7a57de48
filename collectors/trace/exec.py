"""Programs started: every execve and execveat that succeeded or failed, with path and result.

Not: arguments and environment, which are never read. Cost: 4 microseconds in the kernel for each exec,
and its slower system call entry while attached; in the agent 0.2 ms for each new process, to see who it is.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from collectors.bpf import fields
from collectors.events import Attributes, EventCollector, ObservesExec, text


class Exec(EventCollector):
    """Events of kind ``exec``; detail is the path, result 0 or -errno, latency that of the call."""

    name = "exec"
    source = "exec.bpf.c"
    offsets = fields.EXEC
    detail_bytes = 256

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the path."""
        return text(record["detail"]), []

    def observe(self, records: NDArray[Any]) -> None:
        """Tell the resolver of processes that may be gone in a moment."""
        super().observe(records[records["result"] != 0])
        if isinstance(self._workloads, ObservesExec):
            for record in records[records["result"] == 0]:
                self._workloads.observe_exec(
                    int(record["pid"]), text(record["comm"]), text(record["detail"]), int(record["ppid"]),
                    int(record["cgroup"]),
                )  # fmt: skip
