"""Every TCP and UDP socket that there is now, of all network namespaces that a process is in: state, addresses, owner.

From ``/proc/PID/net`` of one process of each namespace (proc_net(5)), so nothing has to enter it. The owner is the
process with the lowest number that holds a descriptor of the socket, ``pids`` are all of them; a connection that waits
to be accepted, or that its process has closed (``time_wait``), has none (pid 0). Not: namespaces without a process, and
other protocols. Of a listening socket ``receive_queue_bytes`` is the number of connections that wait. Cost: 20
microseconds of user CPU for each descriptor of the node and each socket, once.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.addresses import unpack
from collectors.base import WorkloadResolver
from collectors.processes import PROC, pids, process
from collectors.table_rows import weights
from collectors.top.base import schema, who

if TYPE_CHECKING:
    from collectors.catalogue import Shared

_PROTOCOLS = ("tcp", "tcp6", "udp", "udp6")
_STATES = (
    "", "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close", "close_wait", "last_ack",
    "listen", "closing", "new_syn_recv",
)  # fmt: skip
_V4, _V6 = 2, 10


@dataclass(frozen=True, slots=True)
class _Socket:
    protocol: str
    namespace: int
    state: str
    local: str
    peer: str
    uid: int
    inode: int
    sending: int
    receiving: int


class SnapshotSocket:
    """One row for each socket."""

    name = "snapshot_socket"
    columns = schema(
        ("protocol", pa.string()),
        ("state", pa.string()),
        ("local", pa.string()),
        ("peer", pa.string()),
        ("send_queue_bytes", pa.uint64()),
        ("receive_queue_bytes", pa.uint64()),
        ("network_namespace", pa.uint64()),
        ("inode", pa.uint64()),
        ("pids", pa.string()),
    )
    shown: ClassVar[tuple[str, ...]] = (
        "protocol", "state", "local", "peer", "service", "pid", "comm", "uid", "send_queue_bytes",
        "receive_queue_bytes",
    )  # fmt: skip
    sums = ("send_queue_bytes", "receive_queue_bytes")
    detail = ("protocol", "state", "local", "peer")

    def __init__(self, workloads: WorkloadResolver, *, arguments: bool = False, proc: Path = PROC) -> None:
        del arguments  # sockets have none
        self._workloads, self._proc = workloads, proc

    @classmethod
    def make(cls, shared: Shared) -> Self:
        """Make it as the agent takes it."""
        return cls(shared.workloads)

    @staticmethod
    def weight(rows: pa.RecordBatch) -> NDArray[np.float64]:
        """Return which rows are kept where not all are: those of a process first, with the most in their queues."""
        owned = np.where(rows.column("pid").to_numpy() > 0, 2.0**50, 0.0)
        return weights(rows, "send_queue_bytes,receive_queue_bytes") + owned

    def take(self) -> pa.RecordBatch:
        """Return the rows, by namespace and protocol as the kernel lists them."""
        found = [each for number, holders in self._namespaces().items() for each in self._sockets(number, holders)]
        owners = self._owners()
        held = [owners.get(each.inode, []) if each.inode else [] for each in found]
        first = np.array([pids[0] if pids else 0 for pids in held], np.uint32)
        comms = {pid: _comm(pid, self._proc) for pid in set(first.tolist())}
        arrays = who(
            self._workloads,
            first,
            np.zeros(len(found), np.uint64),
            np.array([each.uid for each in found], np.uint32),
            [comms[pid] for pid in first.tolist()],
        )
        arrays |= {
            "protocol": pa.array([each.protocol for each in found], pa.string()),
            "state": pa.array([each.state for each in found], pa.string()),
            "local": pa.array([each.local for each in found], pa.string()),
            "peer": pa.array([each.peer for each in found], pa.string()),
            "send_queue_bytes": pa.array([each.sending for each in found], pa.uint64()),
            "receive_queue_bytes": pa.array([each.receiving for each in found], pa.uint64()),
            "network_namespace": pa.array([each.namespace for each in found], pa.uint64()),
            "inode": pa.array([each.inode for each in found], pa.uint64()),
            "pids": pa.array([",".join(map(str, pids)) for pids in held], pa.string()),
        }
        return pa.RecordBatch.from_arrays([arrays[each.name] for each in self.columns], schema=self.columns)

    def _namespaces(self) -> dict[int, list[int]]:
        """Return {network namespace: its processes}."""
        found: dict[int, list[int]] = {}
        for pid in pids(self._proc):
            with suppress(OSError):
                link = os.readlink(f"{self._proc}/{pid}/ns/net")  # noqa: PTH115 - "net:[4026531840]"
                found.setdefault(int(link[5:-1]), []).append(pid)
        return found

    def _sockets(self, namespace: int, holders: list[int]) -> Iterator[_Socket]:
        for protocol in _PROTOCOLS:
            for pid in holders:
                try:
                    text = (self._proc / str(pid) / "net" / protocol).read_text()
                except OSError:
                    continue  # it has ended, or there is no IPv6: ask the next one
                yield from (_parsed(line.split(), protocol, namespace) for line in text.splitlines()[1:])
                break

    def _owners(self) -> dict[int, list[int]]:
        """Return {inode of a socket: processes that hold it}."""
        found: dict[int, list[int]] = {}
        for pid in pids(self._proc):
            with suppress(OSError):
                for fd in os.listdir(f"{self._proc}/{pid}/fd"):  # noqa: PTH208 - names, not paths
                    with suppress(OSError):
                        link = os.readlink(f"{self._proc}/{pid}/fd/{fd}")  # noqa: PTH115
                        if link.startswith("socket:["):
                            held = found.setdefault(int(link[8:-1]), [])
                            if pid not in held:
                                held.append(pid)
        return found


def _parsed(words: list[str], protocol: str, namespace: int) -> _Socket:
    own, own_port = _address(words[1])
    peer, peer_port = _address(words[2])
    family = _V6 if protocol.endswith("6") else _V4
    local, remote = unpack(struct.pack("<HHHH16s16s", family, own_port, peer_port, 0, own, peer))
    number = int(words[3], 16)
    sending, _, receiving = words[4].partition(":")
    state = _STATES[number] if number < len(_STATES) else str(number)
    if protocol.startswith("udp") and state == "close":
        state = "unconnected"
    return _Socket(
        protocol, namespace, state, local, remote, int(words[7]), int(words[9]), int(sending, 16), int(receiving, 16)
    )


def _address(text: str) -> tuple[bytes, int]:
    """Return (address, port); the kernel writes an address as 32-bit words of the machine's byte order."""
    words, _, port = text.partition(":")
    numbers = [int(words[at : at + 8], 16) for at in range(0, len(words), 8)]
    return struct.pack(f"={len(numbers)}I", *numbers), int(port, 16)


def _comm(pid: int, proc: Path) -> str:
    found = process(pid, proc) if pid else None
    return found.comm if found else ""
