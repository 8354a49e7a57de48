"""Stopping on request."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def until_asked() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set from now on; call it in the main thread."""
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    return stop
