"""TCP connections accepted: who, from where, and how long they waited in the accept queue; and accepts that failed.

Not: connections that are taken in ways that do not return from accept (io_uring), and accepts that found nothing yet
(EAGAIN) or were interrupted. Cost: 2 microseconds for each accept, 0.2 for each change of a TCP socket's state.
"""

from __future__ import annotations

from typing import Any

from collectors.addresses import BYTES, unpack
from collectors.bpf import fields
from collectors.events import Attributes, EventCollector


class TcpAccept(EventCollector):
    """Events of kind ``tcpaccept``; detail is the peer, result 0 or -errno, latency from established to accepted.

    Of an accept that failed the peer is not known: its detail is the unspecified address.
    """

    name = "tcpaccept"
    source = "tcpaccept.bpf.c"
    offsets = fields.SOCK | fields.FILES
    detail_bytes = BYTES

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the peer; the own address is an attribute."""
        own, peer = unpack(record["detail"].tobytes())
        return peer, [("local", own)]
