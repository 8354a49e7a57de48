"""Addresses that sockets are bound to, IPv4 and IPv6: which, by what protocol, and the result.

Port 0 becomes the port that the kernel chose (``asked_port`` says so). Not: sockets of other families (Unix, netlink),
ports that connect and listen choose by themselves, and binds through io_uring. Cost: 1.5 microseconds a bind.
"""

from __future__ import annotations

import socket
import struct

from collectors.addresses import BYTES, unpack
from collectors.bpf import fields
from collectors.calls import CallCollector
from collectors.events import Attributes

_REST = struct.Struct("<Ii")
_ASKED_PORT = struct.Struct("<4xI")
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp", 262: "mptcp"}


class Bind(CallCollector):
    """Events of kind ``bind``; detail is the address, result 0 or -errno."""

    name = "bind"
    source = "bind.bpf.c"
    offsets = fields.SOCK | fields.FILES | fields.BIND
    detail_bytes = BYTES + _REST.size
    ring_bytes = 1 << 18

    def describe_detail(self, detail: bytes) -> tuple[str, Attributes]:
        """Return the address; protocol, asked port and interface are attributes."""
        address, _ = unpack(detail[:BYTES])
        protocol, device = _REST.unpack_from(detail, BYTES)
        (asked,) = _ASKED_PORT.unpack_from(detail)
        attributes = [("protocol", _PROTOCOLS.get(protocol, str(protocol)))] if protocol else []
        if not address.endswith(f":{asked}"):
            attributes.append(("asked_port", str(asked)))
        if device:
            attributes.append(("interface", _interface(device)))
        return address, attributes


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)  # of another network namespace, or gone
