"""The life of TCP connections: opened or refused, accepted, closed with the bytes that went each way.

Not: connects that fail before their first packet, accepts that fail (see tcpaccept) or that io_uring makes, and the
sides of a connection that no process ever accepted, except their end. Of a connection that is older than the gadget
only the end is told, and its process when that process closes it. Bytes are data, each counted once. Cost: 0.6
microseconds for each change of a TCP socket's state and 1.7 for each accept; on demand, because tcpconnect and
tcpaccept tell most of it all the time.
"""

from __future__ import annotations

import struct
from typing import Any

from collectors.addresses import BYTES, unpack
from collectors.bpf import fields
from collectors.events import Attributes, EventCollector

_OPERATIONS = ("connect", "accept", "close")
_MORE = struct.Struct("<QQIHHII")
# Linux include/net/tcp_states.h; part of what the tracepoint prints.
_STATES = ("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
           "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV")  # fmt: skip


def state(number: int) -> str:
    """Return the name of a TCP socket's state."""
    return _STATES[number] if 0 < number < len(_STATES) else str(number)


class Tcp(EventCollector):
    """Events of kind ``tcp``; detail is what happened and the peer, result 0 or -errno.

    Latency: of a connect SYN to answer, of an accept established to accepted, of a close since it was established
    (0 when that was before the gadget). ``last_state`` of a close is the state that the connection was in.
    """

    name = "tcp"
    source = "tcp.bpf.c"
    offsets = fields.SOCK | fields.FILES | fields.TCP
    detail_bytes = BYTES + _MORE.size

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return operation and peer; of a close also the bytes."""
        raw = record["detail"].tobytes()
        local, peer = unpack(raw[:BYTES])
        sent, received, again, what, timed, last, _pad = _MORE.unpack_from(raw, BYTES)
        attributes = [("operation", _OPERATIONS[what]), ("peer", peer), ("local", local)]
        if _OPERATIONS[what] != "close":
            return f"{_OPERATIONS[what]} {peer}", attributes
        attributes += [
            ("bytes_sent", str(sent)), ("bytes_received", str(received)), ("retransmits", str(again)),
            ("last_state", state(last)),
        ]  # fmt: skip
        if not timed:
            attributes.append(("began", "earlier"))
        return f"close {peer} sent {sent} received {received}", attributes
