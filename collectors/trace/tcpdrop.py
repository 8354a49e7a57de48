"""TCP packets that the kernel threw away, and the kernel's reason: no socket, full backlog, bad checksum, ...

Every one, incoming or outgoing. Not: packets that a device or the network lost, and what a socket that closes had in
its queues (QUEUE_PURGE). Reasons are the running kernel's own
names (Linux 5.17 and later tell them). A packet without a socket belongs to no process. Cost: 0.2 microseconds for each
packet of any kind that is dropped, 0.9 for one of TCP.
"""

from __future__ import annotations

import struct
from typing import Any

from collectors.addresses import BYTES, unpack
from collectors.bpf import fields, requirements
from collectors.events import Attributes
from collectors.socket_events import SocketEvents, table
from collectors.trace.tcp import state
from streams.schema.errors import KernelError

_MORE = struct.Struct("<QIHBBII")
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")  # RFC 9293, lowest bit first


class TcpDrop(SocketEvents):
    """Events of kind ``tcpdrop``; detail is the reason and the packet's way, result 0."""

    name = "tcpdrop"
    source = "tcpdrop.bpf.c"
    offsets = fields.SOCK | fields.TCP | fields.SOCK_OWNER | fields.SKB
    detail_bytes = BYTES + _MORE.size
    inode_at = BYTES

    def defines(self) -> dict[str, int]:
        """Newer kernels tell the receiving socket.

        Raises:
            KernelError: this kernel tells no reason.
        """
        if why := requirements.tracepoint_missing("skb", "kfree_skb"):
            raise KernelError(why)
        form = (requirements.TRACEFS / "events/skb/kfree_skb/format").read_text()
        if " reason;" not in form:
            raise KernelError("tracepoint skb:kfree_skb tells no reason in this kernel; Linux 5.17 and later do")
        self._reasons = table(form.partition("print fmt:")[2])
        numbers = {name: number for number, name in self._reasons.items()}
        constants = {"REASON_PURGE": numbers["QUEUE_PURGE"]} if "QUEUE_PURGE" in numbers else {}
        return constants | ({"DROP_TELLS_SOCKET": 1} if "rx_sk;" in form else {})

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the reason and the way."""
        raw = record["detail"].tobytes()
        source, destination = unpack(raw[:BYTES])
        _inode, reason, number, flags, _pad, length, _more = _MORE.unpack_from(raw, BYTES)
        name = self._reasons.get(reason, str(reason))
        attributes = [
            ("reason", name), ("source", source), ("destination", destination), ("bytes", str(length)),
            ("flags", " ".join(text for bit, text in enumerate(_FLAGS) if flags >> bit & 1)),
        ]  # fmt: skip
        if number:
            attributes.append(("state", state(number)))
        return f"{name} {source} > {destination}", attributes
