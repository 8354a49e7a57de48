"""TCP connections opened: who, to where, how long the handshake took, and its result.

Not: connects that fail before their first packet (no route, no free port). Cost: 0.3 microseconds for
each change of a TCP socket's state.
"""

from __future__ import annotations

from typing import Any

from collectors.addresses import BYTES, unpack
from collectors.bpf import fields
from collectors.events import Attributes, EventCollector


class TcpConnect(EventCollector):
    """Events of kind ``tcpconnect``; detail is the peer, result 0 or -errno, latency SYN to answer."""

    name = "tcpconnect"
    source = "tcpconnect.bpf.c"
    offsets = fields.SOCK
    detail_bytes = BYTES

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the peer; the own address is an attribute."""
        own, peer = unpack(record["detail"].tobytes())
        return peer, [("source", own)]
