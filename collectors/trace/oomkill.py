"""Processes killed for want of memory, in a control group or the whole node. Cost: none until it happens."""

from __future__ import annotations

import struct
from typing import Any

from collectors.bpf.requirements import TRACEFS
from collectors.events import Attributes, EventCollector, text


class OomKill(EventCollector):
    """Events of kind ``oomkill``; the event's process is the victim, result -9."""

    name = "oomkill"
    source = "oomkill.bpf.c"

    def defines(self) -> dict[str, int]:
        """Newer kernels tell the victim's name and memory; older ones only its pid."""
        form = TRACEFS / "events/oom/mark_victim/format"
        return {"MARK_VICTIM_TELLS": 1} if form.exists() and "anon_rss" in form.read_text() else {}

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the victim and its memory."""
        anon, file, shmem, by, _pad = struct.unpack("<QQQII", record["detail"].tobytes())
        sizes = [("anon_kb", str(anon)), ("file_kb", str(file)), ("shmem_kb", str(shmem))]
        return f"{text(record['comm']) or 'process'} ({int(record['pid'])})", [*sizes, ("triggered_by_pid", str(by))]
