"""TCP segments that were sent again: between whom, in which state of the connection, and whose it is.

Every one, probes at the end of a window and repeated SYN-ACKs included. Not: why. The process is looked up when the
event arrives; of a connection that no process holds any more only cgroup and user are known. Cost: 2 microseconds for
each repeated segment, nothing otherwise.
"""

from __future__ import annotations

import struct
from typing import Any

from collectors.addresses import BYTES, unpack
from collectors.bpf import fields
from collectors.bpf.requirements import TRACEFS
from collectors.events import Attributes
from collectors.socket_events import SocketEvents
from collectors.trace.tcp import state

_MORE = struct.Struct("<QII")


class TcpRetransmit(SocketEvents):
    """Events of kind ``tcpretrans``; detail is the peer, result 0 or the -errno of sending again."""

    name = "tcpretrans"
    source = "tcpretrans.bpf.c"
    offsets = fields.SOCK | fields.TCP | fields.SOCK_OWNER
    detail_bytes = BYTES + _MORE.size
    inode_at = BYTES

    def defines(self) -> dict[str, int]:
        """Newer kernels tell whether sending again failed."""
        form = TRACEFS / "events/tcp/tcp_retransmit_skb/format"
        return {"RETRANSMIT_TELLS": 1} if form.exists() and "int err;" in form.read_text() else {}

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the peer; the own address and the state are attributes."""
        raw = record["detail"].tobytes()
        local, peer = unpack(raw[:BYTES])
        _inode, number, _pad = _MORE.unpack_from(raw, BYTES)
        return peer, [("local", local), ("state", state(number))]
