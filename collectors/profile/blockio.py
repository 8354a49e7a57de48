"""Block I/O latency: issue to the device until completion, by device, operation and issuing process.

Measures every request of every block device. Not: time in the scheduler's queue before the issue, and requests that
never complete. Write-back is the kernel's own (process kthreadd).
"""

from __future__ import annotations

from pathlib import Path

from collectors.bpf import fields
from collectors.histograms import HistogramCollector

# Linux include/linux/blk_types.h, enum req_op: part of the block layer since 4.8, and visible in every trace.
_OPERATIONS = {0: "read", 1: "write", 2: "flush", 3: "discard", 5: "secure_erase", 7: "zone_append", 9: "write_zeroes"}
_DEVICES = Path("/sys/dev/block")


class BlockLatency(HistogramCollector):
    """The ``blockio`` probe; operations are ``DEVICE read|write|flush|discard|...``."""

    name = "blockio"
    source = "blockio.bpf.c"
    offsets = fields.BLOCK

    def operation(self, op: int, kind: int) -> str:
        """Return the device's name and the operation."""
        return f"{device_name(op)} {operation_name(kind)}"


def device_name(dev: int) -> str:
    """Return the name of a device by the kernel's number of it; the number itself when it is gone."""
    number = f"{dev >> 20}:{dev & 0xFFFFF}"
    try:
        return (_DEVICES / number).readlink().name
    except OSError:
        return number


def operation_name(op: int) -> str:
    """Return the name of a request's operation."""
    return _OPERATIONS.get(op, f"op{op}")
