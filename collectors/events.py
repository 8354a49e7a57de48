"""The common part of the collectors of discrete events: a ring buffer, read as soon as something happens.

Exact: every event is a row or in ``lost`` (no room in the ring, or more than ``MAX_HELD`` or ``MAX_HELD_BYTES`` in one
interval). In the
agent a thread takes the records and lets the workload resolver look at the process while it may still live; a live
tool calls ``poll`` instead. Idle cost: none. Memory: the ring (``RING_BYTES``) and what an interval holds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.base import Batch, CommOnly, WorkloadResolver
from collectors.bpf import fields
from collectors.bpf.loader import Programs, load
from collectors.bpf.requirements import clock_base_ns
from collectors.bpf.ringbuf import RingBuffer
from collectors.loaded import Loaded
from collectors.wanted import Wanted
from streams.schema.messages import EVENT

if TYPE_CHECKING:
    from collectors.catalogue import Shared

RING_BYTES = 1 << 20
MAX_HELD = 200_000
MAX_HELD_BYTES = 32 << 20
_GATHER_S = 0.02

Attributes = list[tuple[str, str]]


@runtime_checkable
class ObservesExec(Protocol):
    """A resolver that wants to hear of an exec at once."""

    def observe_exec(
        self, pid: int, comm: str, path: str = "", ppid: int = 0, cgroup_id: int = 0,
        variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Take note of an exec."""


@runtime_checkable
class Prefetches(Protocol):
    """A resolver that can look at processes now, so that they are known after they exit."""

    def prefetch(self, pids: list[int], ppids: list[int], cgroup_ids: list[int]) -> None:
        """Look at processes now; those that are gone are told by their cgroups and parents."""


class EventCollector(Loaded):
    """Base of the collectors whose kernel side includes ``event.h``."""

    name: str
    schema: str = "event"
    source: ClassVar[str]
    offsets: ClassVar[Mapping[str, str]] = {}
    detail_bytes: ClassVar[int] = 32
    ring_bytes: ClassVar[int] = RING_BYTES

    def __init__(
        self,
        workloads: WorkloadResolver | None = None,
        *,
        cache: Path | None = None,
        ring_bytes: int | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self._workloads: WorkloadResolver = workloads or CommOnly()
        self._cache, self._ring_bytes = cache, ring_bytes or self.ring_bytes
        self._wanted = wanted or Wanted()
        self._ring: RingBuffer | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._held: list[NDArray[Any]] = []
        self._overflowed = 0
        self.record = np.dtype(
            [
                ("at", "u8"),
                ("cgroup", "u8"),
                ("latency", "u8"),
                ("pid", "u4"),
                ("ppid", "u4"),
                ("uid", "u4"),
                ("result", "i4"),
                ("comm", "S16"),
                ("detail", f"V{self.detail_bytes}"),
            ]
        )

    @classmethod
    def make(cls, shared: Shared, wanted: Wanted | None = None) -> Self:
        """Make it as the agent runs it, or a live gadget that wants only some events."""
        return cls(shared.workloads, wanted=wanted)

    def defines(self) -> dict[str, int]:
        """Return the constants that the kernel side needs."""
        return {}

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the detail and the attributes of one record."""
        raise NotImplementedError

    def attach(self, programs: Programs) -> None:
        """Attach the programs; for those that need to be told where."""
        programs.attach()

    def arrange(self, records: NDArray[Any]) -> NDArray[Any]:
        """Return what becomes of new records before anybody sees them; called without any now and then, too."""
        return records

    def start(self, *, live: bool = False) -> None:
        """Load and attach; without ``live`` a thread takes the records as they come.

        Raises:
            KernelError: it cannot run here; the message says what is missing.
        """
        programs = load(
            self.source,
            self.defines() | self._wanted.defines(),
            offsets={**fields.TASK, **self.offsets},
            sizes={"events": self._ring_bytes},
            cache=self._cache,
        )
        with programs.kept():
            self._ring = RingBuffer(programs.maps["events"], self.record)
            self._wanted.tell(programs)
            self.attach(programs)
        self._programs = programs
        if not live:
            self._thread = threading.Thread(target=self._take, name=f"collect-{self.name}", daemon=True)
            self._thread.start()

    def poll(self, timeout_s: float) -> NDArray[Any]:
        """Wait for records and return them; for live tools, which started it with ``live``."""
        assert self._ring is not None
        self._ring.wait(timeout_s)
        return self.arrange(self._ring.read())

    def _take(self) -> None:
        ring = self._ring
        assert ring is not None
        while not self._stop.is_set():
            if ring.wait():
                self._keep()
                # Many events are taken together: a wake-up for each would cost more than the event.
                self._stop.wait(_GATHER_S)

    def _keep(self) -> None:
        """Take what is in the ring."""
        assert self._ring is not None
        with self._lock:
            records = self.arrange(self._ring.read())
            if not len(records):
                return
            self.observe(records)
            most = min(MAX_HELD, MAX_HELD_BYTES // self.record.itemsize)
            room = most - sum(map(len, self._held))
            self._overflowed += max(0, len(records) - room)
            if room > 0:
                self._held.append(records[:room])

    def observe(self, records: NDArray[Any]) -> None:
        """Let the resolver look at the processes of new records."""
        if isinstance(self._workloads, Prefetches):
            pids, first = np.unique(records["pid"], return_index=True)
            self._workloads.prefetch(pids.tolist(), records["ppid"][first].tolist(), records["cgroup"][first].tolist())

    def collect(self, start_ns: int, end_ns: int) -> Batch | None:  # noqa: ARG002 - events carry their own times
        """Return one row for each event since the last call; None when there was none."""
        if self._programs is None or self._ring is None:
            return None
        with self._lock:
            self._keep()
            held, self._held = self._held, []
            overflowed, self._overflowed = self._overflowed, 0
        lost = overflowed + self.lost()
        records = np.concatenate(held) if held else np.empty(0, self.record)
        if not len(records) and not lost:
            return None
        return Batch(self.rows(records), len(records), lost)

    def described(self, records: NDArray[Any]) -> tuple[pa.Array, pa.Array]:
        """Return the columns ``detail`` and ``attributes``."""
        found = [self.describe(record) for record in records]
        details = pa.array([detail for detail, _ in found], pa.string())
        return details, pa.array([attributes for _, attributes in found], pa.map_(pa.string(), pa.string()))

    def rows(self, records: NDArray[Any]) -> pa.RecordBatch:
        """Return the contract's rows of records."""
        count = len(records)
        comms = [text(each) for each in records["comm"]]
        details, attributes = self.described(records)
        arrays = {
            "time_ns": pa.array(records["at"].astype(np.int64) + clock_base_ns(), pa.int64()),
            **self._workloads.columns(records["pid"].copy(), records["cgroup"].copy(), comms),
            "kind": pa.array([self.name] * count, pa.string()).dictionary_encode(),
            "pid": pa.array(records["pid"]),
            "ppid": pa.array(records["ppid"]),
            "uid": pa.array(records["uid"]),
            "comm": pa.array(comms, pa.string()).dictionary_encode(),
            "result": pa.array(records["result"]),
            "latency_ns": pa.array(records["latency"]),
            "detail": details,
            "attributes": attributes,
        }
        return pa.RecordBatch.from_arrays([arrays[each.name].cast(each.type) for each in EVENT], schema=EVENT)

    def close(self) -> None:
        """Detach and free."""
        self._stop.set()
        if self._thread and self._ring:
            self._ring.wake()
            self._thread.join()
            self._thread = None
        if self._ring:
            self._ring.close()
            self._ring = None
        super().close()


def text(raw: bytes) -> str:
    """Return a C string as text."""
    return bytes(raw).partition(b"\0")[0].decode(errors="replace")
