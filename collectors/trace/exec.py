"""Programs started: every execve and execveat that succeeded or failed, with path, working directory and result.

Of the environment the values of ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and
``PYROSCOPE_APPLICATION_NAME`` are taken, in the kernel, at the exec, so that a process that lived a millisecond has its
name (not of environments beyond 512 strings, or values that find no room). Nothing else of it leaves the kernel.
Arguments are read by ``ExecArguments`` only, which no agent runs. Cost: 8 microseconds in the kernel for each exec, 2
of them for an environment of 35 variables, and its slower system call entry while attached; in the agent 0.2 ms for
each new process, to see who it is.
"""

from __future__ import annotations

import shlex
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.bpf import fields
from collectors.bpf.loader import Programs
from collectors.bpf.ringbuf import RingBuffer
from collectors.events import Attributes, EventCollector, ObservesExec, text
from collectors.file_path import joined

_LAYOUT = struct.Struct("<256sBB2xHH256s")
_ARGUMENT_BYTES = 512
_SAYS_NOTHING = 1  # environment.h
_VARIABLES = np.dtype(
    [("at", "u8"), ("pid", "u4"), ("pad", "u4"), ("service", "S128"), ("attributes", "S640"), ("application", "S128")]
)
_NAMES = {
    "service": "OTEL_SERVICE_NAME",
    "attributes": "OTEL_RESOURCE_ATTRIBUTES",
    "application": "PYROSCOPE_APPLICATION_NAME",
}
_MOST_SAID = 4096


class Exec(EventCollector):
    """Events of kind ``exec``; detail is the path, result 0 or -errno, latency that of the call."""

    name = "exec"
    source = "exec.bpf.c"
    offsets = fields.EXEC | fields.PATH
    detail_bytes = _LAYOUT.size
    ring_bytes = 2 << 20
    _services: RingBuffer | None = None
    _said: OrderedDict[tuple[int, int], dict[str, str]]

    def attach(self, programs: Programs) -> None:
        """Attach; what processes are given to say of themselves comes in a ring of its own, as few say anything."""
        self._services, self._said = RingBuffer(programs.maps["services"], _VARIABLES), OrderedDict()
        super().attach(programs)

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the path; the working directory is an attribute."""
        path, _, whole, length, _, place = _LAYOUT.unpack_from(record["detail"].tobytes())
        return text(path), [("cwd", joined(place[:length], whole=bool(whole)))]

    def observe(self, records: NDArray[Any]) -> None:
        """Tell the resolver of processes that may be gone in a moment."""
        super().observe(records[records["result"] != 0])
        self._listen()
        if isinstance(self._workloads, ObservesExec):
            for record in records[records["result"] == 0]:
                path, environment, *_ = _LAYOUT.unpack_from(record["detail"].tobytes())
                said = self._said.pop((int(record["pid"]), int(record["at"])), None)
                self._workloads.observe_exec(
                    int(record["pid"]), text(record["comm"]), text(path), int(record["ppid"]),
                    int(record["cgroup"]), {} if environment == _SAYS_NOTHING else said,
                )  # fmt: skip

    def _listen(self) -> None:
        """Take what processes say of themselves; a record is there before that of its exec."""
        assert self._services is not None
        for each in self._services.read():
            found = {name: text(each[column]) for column, name in _NAMES.items() if each[column]}
            self._said[int(each["pid"]), int(each["at"])] = found
        while len(self._said) > _MOST_SAID:  # of execs whose own record found no room, or was not wanted
            self._said.popitem(last=False)

    def close(self) -> None:
        """Detach and free."""
        super().close()
        if self._services:
            self._services.close()
            self._services = None


class ExecArguments(Exec):
    """The same with the arguments, of which the first ``_ARGUMENT_BYTES`` are shown. For a person who asks for them."""

    detail_bytes = _LAYOUT.size + _ARGUMENT_BYTES

    def defines(self) -> dict[str, int]:
        """Read arguments."""
        return super().defines() | {"ARGUMENTS": 1}

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the path; working directory and arguments are attributes."""
        path, attributes = super().describe(record)
        raw = record["detail"].tobytes()
        length = _LAYOUT.unpack_from(raw)[4]
        words = raw[_LAYOUT.size : _LAYOUT.size + length].removesuffix(b"\0").split(b"\0")
        return path, [*attributes, ("args", shlex.join(word.decode(errors="replace") for word in words))]
