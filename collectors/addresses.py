"""The addresses of a socket as the kernel programs send them (``collectors/bpf/socket.h``)."""

from __future__ import annotations

import socket
import struct

BYTES = 40


def unpack(detail: bytes) -> tuple[str, str]:
    """Return (own, peer) as ``address:port``, IPv6 in brackets, IPv4 in IPv6 as IPv4."""
    family, port, peer_port, _pad, own, peer = struct.unpack("<HHHH16s16s", bytes(detail))
    return _text(family, own, port), _text(family, peer, peer_port)


def _text(family: int, raw: bytes, port: int) -> str:
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(socket.AF_INET, raw[:4])}:{port}"
    if raw.startswith(b"\0" * 10 + b"\xff\xff"):
        return f"{socket.inet_ntop(socket.AF_INET, raw[12:])}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, raw)}]:{port}"
