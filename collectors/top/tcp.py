"""Bytes that processes sent and received on TCP, by connection.

Measures what system calls (and io_uring) handed to the socket or took from it: payload, without headers and
retransmits. What was only peeked at is counted when it is received. Not: receiving by ``splice``, which passes no
tracepoint, and what is sent by the kernel itself without a socket call. Needs Linux 6.3 (``sock:sock_send_length``).
Cost: 0.4 microseconds a call that moved bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.addresses import BYTES, unpack
from collectors.bpf import fields
from collectors.top.base import KernelTop, schema


class TopTcp(KernelTop):
    """One row for each (process, connection)."""

    name = "top_tcp"
    source = "top_tcp.bpf.c"
    offsets = fields.SOCK
    key = np.dtype([("tgid", "u4"), ("pad", "u4"), ("at", f"V{BYTES}")])
    values = ("sent_bytes", "received_bytes", "sends", "receives")
    columns = schema(
        ("local", pa.string()),
        ("peer", pa.string()),
        ("sent_bytes", pa.uint64()),
        ("received_bytes", pa.uint64()),
        ("sends", pa.uint64()),
        ("receives", pa.uint64()),
    )
    shown = ("service", "pid", "comm", "local", "peer", "sent_bytes", "received_bytes")
    sort = "sent_bytes,received_bytes"
    sums, counted, detail = values, ("sends", "receives"), ("local", "peer")

    def describe(self, keys: NDArray[Any]) -> dict[str, pa.Array]:
        """Return both addresses."""
        pairs = [unpack(each.tobytes()) for each in keys["at"]]
        return {
            "local": pa.array([own for own, _ in pairs], pa.string()),
            "peer": pa.array([peer for _, peer in pairs], pa.string()),
        }
