"""Signals sent: by whom, to whom, which, and what became of it.

The event's process is the sender: who ran when the kernel generated the signal. Of timers and of the terminal that is
whoever happened to run (``from`` tells them by their code). Not: signals that the kernel refused to send (no such
process, no permission). Cost: 0.5 microseconds a signal.
"""

from __future__ import annotations

import signal
import struct
from typing import Any

from collectors.bpf import fields
from collectors.events import Attributes, EventCollector, text

_LAYOUT = struct.Struct("<iiiIII16s")
_OUTCOMES = ("delivered", "ignored", "already pending", "queue full", "sent without its value")
_CODES = {
    0: "kill",
    0x80: "kernel",
    -1: "sigqueue",
    -2: "timer",
    -3: "message queue",
    -4: "aio",
    -5: "sigio",
    -6: "tkill",
}


class Signal(EventCollector):
    """Events of kind ``signal``; detail is the signal and its target, result -EAGAIN when its queue was full."""

    name = "signal"
    source = "signal.bpf.c"
    offsets = fields.SIGNAL
    detail_bytes = _LAYOUT.size

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the signal and its target."""
        number, code, outcome, pid, tid, whole, comm = _LAYOUT.unpack(record["detail"].tobytes())
        name, target = signal_name(number), text(comm)
        attributes = [
            ("signal", name),
            ("target_pid", str(pid)),
            ("target_comm", target),
            ("outcome", _OUTCOMES[outcome] if 0 <= outcome < len(_OUTCOMES) else str(outcome)),
            ("from", _CODES.get(code, f"kernel, code {code}" if code > 0 else f"code {code}")),
        ]
        if not whole:
            attributes.append(("target_tid", str(tid)))
        return f"{name} to {target} ({pid})", attributes


def signal_name(number: int) -> str:
    """Return a signal's name, real-time ones as the C library counts them (it keeps two for itself)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first = signal.SIGRTMIN
        return f"SIGRTMIN+{number - first}" if first <= number <= signal.SIGRTMAX else f"signal {number}"
