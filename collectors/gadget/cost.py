"""What gadgets cost while they run: their programs in the kernel, their part of this process, and what they counted.

Kernel time is the kernel's own account of each program (BPF statistics), to which keeping it adds 30 to 80 ns a run: an
empty program shows some 50. User time is the CPU, user and system, of the threads that a gadget has, and of taking its
rows every interval as the agent does; sending them to Kafka is not part of it. Not seen: what tracepoints cost the rest
of the system beside the programs, such as the slower system call entry.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from collectors.bpf import kernel
from collectors.bpf.kernel import RunStats
from collectors.catalogue import Entry, Shared
from streams.schema.errors import KernelError

COLUMNS = pa.schema(
    [
        ("gadget", pa.string()),
        ("cpu_percent", pa.float64()),
        ("kernel_percent", pa.float64()),
        ("user_percent", pa.float64()),
        ("kernel_ns", pa.uint64()),
        ("user_ns", pa.uint64()),
        ("runs", pa.uint64()),
        ("events", pa.uint64()),
        ("lost", pa.uint64()),
        ("memory_bytes", pa.uint64()),
        ("why", pa.string()),
    ]
)
SHOWN = ("gadget", "cpu_percent", "kernel_percent", "user_percent", "runs", "events", "lost", "memory_bytes", "why")
SORT = "cpu_percent"
INTERVAL_S, TOP_INTERVAL_S = 10.0, 1.0


@runtime_checkable
class HoldsMemory(Protocol):
    """A gadget that has maps in the kernel."""

    def memory_bytes(self) -> int:
        """Return their memory."""


@dataclass(slots=True)
class _Measured:
    """One gadget that runs. ``why`` says what is missing when it does not."""

    entry: Entry
    gadget: Any = None  # a Collector or a Top
    threads: list[int] = field(default_factory=list)
    why: str = ""
    before: RunStats = field(default_factory=RunStats)
    threads_before_ns: int = 0
    taken_ns: int = 0
    due: float = 0.0
    events: int = 0
    lost: int = 0

    @property
    def interval_s(self) -> float:
        return TOP_INTERVAL_S if self.entry.verb == "top" else INTERVAL_S

    def start(self, shared: Shared) -> None:
        known = set(threading.enumerate())
        self.gadget = self.entry.load().make(shared)
        try:
            self.gadget.start()
        except KernelError as error:
            self.why = str(error).splitlines()[0]
        self.threads = [each.native_id for each in threading.enumerate() if each not in known and each.native_id]

    def begin(self, now: float) -> None:
        self.take(self.interval_s)  # what came while others were started
        self.taken_ns = self.events = self.lost = 0
        self.before, self.threads_before_ns = self.gadget.stats(), self._threads_ns()
        self.due = now + self.interval_s

    def take(self, seconds: float) -> None:
        began = time.thread_time_ns()
        if self.entry.verb == "top":
            self.events += self.gadget.collect(seconds).num_rows
            self.lost += self.gadget.lost()
        else:
            now = time.time_ns()
            batch = self.gadget.collect(now - round(seconds * 1e9), now)
            if batch is not None:
                self.events, self.lost = self.events + batch.events, self.lost + batch.lost
        self.taken_ns += time.thread_time_ns() - began

    def _threads_ns(self) -> int:
        total = 0
        for thread in self.threads:
            with suppress(OSError):
                total += int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0])
        return total

    def row(self, seconds: float) -> dict[str, Any]:
        if self.why:
            return {"gadget": self.entry.name, "why": self.why}
        after = self.gadget.stats()
        spent = after.run_time_ns - self.before.run_time_ns
        user = self.taken_ns + self._threads_ns() - self.threads_before_ns
        return {
            "gadget": self.entry.name,
            "cpu_percent": (spent + user) / seconds / 1e7,
            "kernel_percent": spent / seconds / 1e7,
            "user_percent": user / seconds / 1e7,
            "kernel_ns": spent,
            "user_ns": user,
            "runs": after.run_cnt - self.before.run_cnt,
            "events": self.events,
            "lost": self.lost,
            "memory_bytes": self.gadget.memory_bytes() if isinstance(self.gadget, HoldsMemory) else 0,
            "why": "",
        }


def measure(
    entries: Iterable[Entry],
    shared: Shared,
    seconds: float,
    stop: threading.Event,
    *,
    load: AbstractContextManager[object] | None = None,
    settle_s: float = 0.0,
) -> pa.RecordBatch:
    """Run gadgets together for so many seconds, or until ``stop``; return a row for each, the most expensive first.

    One that cannot run here has a row that says why, and the others go on. ``load`` begins when all are attached and
    ends before they are detached. Nothing is counted for its first ``settle_s`` seconds, in which they read the names
    of what runs.

    Raises:
        KernelError: not permitted to count the run time of programs.
    """
    measured = [_Measured(entry) for entry in entries]
    with ExitStack() as stack:
        for each in measured:
            each.start(shared)
            stack.enter_context(closing(each.gadget))
        running = [each for each in measured if not each.why]
        stack.callback(os.close, _account())
        if load is not None:
            stack.enter_context(load)
        if settle_s:
            stop.wait(settle_s)
        began = time.monotonic()
        for each in running:
            each.begin(began)
        end = began + seconds
        while not stop.is_set() and (now := time.monotonic()) < end:
            for each in running:
                if each.due <= now:
                    each.take(each.interval_s)
                    each.due += each.interval_s
            stop.wait(min([end, *(each.due for each in running)]) - time.monotonic())
        elapsed = time.monotonic() - began
        for each in running:
            each.take(each.interval_s)
        rows = [each.row(elapsed) for each in measured]
    return pa.RecordBatch.from_pylist(sorted(rows, key=lambda row: -row.get("cpu_percent", -1.0)), schema=COLUMNS)


def _account() -> int:
    try:
        return kernel.enable_stats()
    except OSError as error:
        raise KernelError(f"cannot count the run time of BPF programs: {error.strerror}; run as root") from error
