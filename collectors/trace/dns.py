"""DNS over UDP port 53: who asked whom for what, the answer's code and addresses, and how long it took.

One row for each question of this node's processes: answered, or given up after 5 s. A question that a resolver asks in
a program's stead without DNS (nscd, systemd-resolved's own protocol, /etc/hosts) is a row of the call, type
``getaddrinfo``. Not: DNS over TCP, TLS, HTTPS or other ports, multicast DNS, fragments. Names are in the rows; contents
of other packets are never read. Cost: 0.35 microseconds for each packet of the node, 20 for each call of getaddrinfo,
and 60 in user space for each question; on demand, and it needs CAP_NET_RAW (in the agent: name it in agent.collectors).
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.addresses import BYTES, unpack
from collectors.base import WorkloadResolver
from collectors.bpf import fields
from collectors.bpf.loader import Programs
from collectors.dns_message import parse
from collectors.dns_pairs import CALL, DETAIL, QUESTION, Pairs
from collectors.events import Attributes, EventCollector, text
from collectors.gadget.filters import Filters
from collectors.libraries import Libraries
from collectors.packet_sockets import PacketSockets
from collectors.wanted import Wanted

_LIBC = ("libc.so.6", "libc-", "ld-musl-", "libc.musl-")


class Dns(EventCollector):
    """Events of kind ``dns``; detail is name and type, result the response code or -ETIMEDOUT, latency the wait.

    Of a call (type ``getaddrinfo``) result is -ENOENT when it failed.
    """

    name = "dns"
    source = "dns.bpf.c"
    offsets = fields.SOCK | fields.SKB
    detail_bytes = DETAIL.itemsize

    def __init__(
        self,
        workloads: WorkloadResolver | None = None,
        *,
        cache: Path | None = None,
        ring_bytes: int | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        # Whether it failed and how long it took is known when question and answer are together: here.
        super().__init__(workloads, cache=cache, ring_bytes=ring_bytes)
        asked = wanted or Wanted()
        self._late = Filters(
            pid=asked.pid, uid=asked.uid, comm=asked.comm, failed=asked.failed, min_latency_ns=asked.min_latency_ns
        )
        self._pairs = Pairs()
        self._sockets: PacketSockets | None = None
        self._libraries: Libraries | None = None

    def attach(self, programs: Programs) -> None:
        """Open the packet sockets and find the C libraries.

        Raises:
            KernelError: CAP_NET_RAW is missing.
        """
        programs.attach()
        self._sockets = PacketSockets(programs.attach_socket)
        self._sockets.open()
        self._sockets.refresh()
        self._libraries = Libraries(_LIBC, programs.attach_library, programs.detach)
        self._libraries.look()

    def arrange(self, records: NDArray[Any]) -> NDArray[Any]:
        """Put questions and answers together; what is complete goes on."""
        if self._sockets is not None and self._libraries is not None:
            self._sockets.refresh()
            self._libraries.look()
        if len(records):
            what = records["detail"].view(DETAIL)["what"]
            self.observe(records[(what != 1) & (records["pid"] > 0)])  # while they wait they still live
        return self._pairs.take(records, time.monotonic_ns())

    def lost(self) -> int:
        """Return what found no room in the kernel, or while it waited for its answer."""
        overflowed, self._pairs.overflowed = self._pairs.overflowed, 0
        return super().lost() + overflowed

    def rows(self, records: NDArray[Any]) -> pa.RecordBatch:
        """Return the contract's rows of those that are wanted."""
        calls = records["detail"].view(DETAIL)["what"] == CALL if len(records) else np.zeros(0, bool)
        told = records.copy()
        told["result"][calls & (records["result"] != 0)] = -errno.ENOENT
        return self._late.apply(super().rows(told))

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return name and type; who was asked, the code and the addresses are attributes."""
        detail = np.frombuffer(record["detail"].tobytes(), DETAIL)[0]
        call = text(detail["call"])
        if detail["what"] == CALL:
            code = "NOERROR" if record["result"] == 0 else "FAILED"
            return f"{call} getaddrinfo", [("name", call), ("type", "getaddrinfo"), ("rcode", code)]
        client, server = unpack(detail["addresses"].tobytes()[:BYTES])
        message = parse(detail["data"].tobytes()[: int(detail["length"])])
        name, kind = (message.name, message.type) if message else ("", "")
        answered = detail["what"] != QUESTION and message is not None
        attributes = [("name", name), ("type", kind), ("server", server), ("client", client)]
        if message is not None and answered:
            attributes += [("rcode", message.code_name), ("addresses", " ".join(message.addresses))]
            if message.truncated:
                attributes.append(("truncated", "1"))
        else:
            attributes.append(("rcode", "TIMEOUT"))
        if call and call.rstrip(".").lower() != name.lower():
            attributes.append(("call", call))
        return f"{name} {kind}", attributes

    def close(self) -> None:
        """Detach and free."""
        super().close()
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
