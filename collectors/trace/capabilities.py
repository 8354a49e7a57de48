"""Capabilities that processes were asked for: which, how often, granted or refused.

Counted in the kernel: one row for each (process, capability, answer) and interval, with the number of checks; live,
five times a second. Bounded by ``ROWS`` such rows; what finds no room is counted as lost. Needs Linux 6.14 (tracepoint
capability:cap_capable). The kernel also asks where nothing depends on the answer: for CAP_SYS_ADMIN at each growth of
memory, so that every process without it is refused it. Cost: 0.5 microseconds a check.
"""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.base import Batch
from collectors.bpf import fields
from collectors.bpf.buffers import wait_until_unused
from collectors.bpf.loader import load
from collectors.events import Attributes, EventCollector

ROWS = 8192
_KEY = np.dtype(
    [("tgid", "u4"), ("ppid", "u4"), ("uid", "u4"), ("capability", "u2"), ("refused", "u1"), ("elsewhere", "u1")]
)
_VALUE = np.dtype([("checks", "u8")])
_DETAIL = np.dtype([("checks", "u8"), ("capability", "u2"), ("elsewhere", "u1"), ("pad", "V5")])
_EPERM = 1
# Linux include/uapi/linux/capability.h, in their order
_NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


class Capabilities(EventCollector):
    """Events of kind ``capabilities``; detail is the capability, result 0 or -EPERM, time that of the counting."""

    name = "capabilities"
    source = "capabilities.bpf.c"
    offsets = fields.CAPABILITY
    detail_bytes = _DETAIL.itemsize
    _second = 0

    def start(self, *, live: bool = False) -> None:  # noqa: ARG002 - nothing comes by itself, so no thread waits
        """Load and attach.

        Raises:
            KernelError: it cannot run here; the message says what is missing.
        """
        defines = self.defines() | self._wanted.defines()
        offsets = {**fields.TASK, **self.offsets}
        sizes = {"rows_0": ROWS, "rows_1": ROWS}
        programs = load(self.source, defines, offsets=offsets, sizes=sizes, cache=self._cache)
        with programs.kept():
            self._wanted.tell(programs)
            self.attach(programs)
        self._programs = programs

    def poll(self, timeout_s: float) -> NDArray[Any]:
        """Return what was counted, after so long."""
        self._stop.wait(timeout_s)
        return self._drain()

    def collect(self, start_ns: int, end_ns: int) -> Batch | None:  # noqa: ARG002 - the time is that of counting
        """Return the rows of the interval; None when there was none."""
        if self._programs is None:
            return None
        records, lost = self._drain(), self.lost()
        if not len(records) and not lost:
            return None
        self.observe(records)
        checks = records["detail"].view(_DETAIL)["checks"]
        return Batch(self.rows(records), int(checks.sum()), lost)

    def _drain(self) -> NDArray[Any]:
        """Take the counts as records."""
        programs = self._programs
        assert programs is not None
        full = self._second
        self._second ^= 1
        programs.maps["control"].update(bytes(4), struct.pack("<I", self._second))
        wait_until_unused(programs.maps["users"], full)
        keys, values = programs.maps[f"rows_{full}"].drain(_KEY, _VALUE)
        records = np.zeros(len(keys), self.record)
        records["at"] = time.monotonic_ns()
        for name, column in (("pid", "tgid"), ("ppid", "ppid"), ("uid", "uid")):
            records[name] = keys[column]
        records["result"] = np.where(keys["refused"], -_EPERM, 0)
        detail = np.zeros(len(keys), _DETAIL)
        detail["checks"], detail["capability"] = values["checks"], keys["capability"]
        detail["elsewhere"] = keys["elsewhere"]
        records["detail"] = detail.view(self.record["detail"])
        for tgid in np.unique(keys["tgid"]).tolist():
            if raw := programs.maps["names"].lookup(struct.pack("<I", tgid)):
                mine = records["pid"] == tgid
                records["comm"][mine] = raw[:16]
                records["cgroup"][mine] = struct.unpack_from("<Q", raw, 16)[0]
        return records

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the capability; the number of checks and where it was asked for are attributes."""
        checks, number, elsewhere = struct.unpack_from("<QHB", record["detail"].tobytes())
        name = f"CAP_{_NAMES[number]}" if number < len(_NAMES) else f"capability {number}"
        return name, [("checks", str(checks)), ("user_namespace", "other" if elsewhere else "initial")]
