"""Waiting until no program uses a buffer (``buffers.h``): microseconds, however busy the CPUs are."""

from __future__ import annotations

import logging
import time

from collectors.bpf import kernel
from collectors.bpf.maps import Map

_PATIENCE_S = 1.0
_log = logging.getLogger(__name__)


def wait_until_unused(users: Map, buffer: int) -> None:
    """Return when no program uses ``buffer``, after user space has switched to the other one.

    A program that is interrupted, or on some kernels preempted, while it uses one takes longer. Should the counter not
    fall to zero within a second, an RCU grace period gives the same certainty.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while users.total(buffer):
        if time.monotonic() > deadline:
            _log.warning("a buffer stays in use; waiting for a grace period", extra={"buffer": buffer})
            kernel.wait_for_running_programs()
            return
        time.sleep(0.0005)
