"""The common part of the latency collectors: swap the kernel's two buffers, drain one, group it to rows.

Exact: every event of an interval is in its rows or in ``lost``, unless ``set_sampling`` asks for less. Cost in user
space: about 1 microsecond for each (process, operation, bucket) seen in the interval.
Memory in the kernel: two hash maps of ``entries`` elements (16384: 3.3 MB), and 1.3 MB of names and slots.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.base import Batch, CommOnly, WorkloadResolver
from collectors.bpf import fields
from collectors.bpf.buffers import wait_until_unused
from collectors.bpf.loader import load
from collectors.loaded import Loaded
from collectors.wanted import Wanted
from streams.schema.messages import LATENCY, WORKLOAD

if TYPE_CHECKING:
    from collectors.catalogue import Shared
    from collectors.settings import AgentOptions

ENTRIES = 16384
MAX_SHIFT = 15
_BUFFER, _SHIFT = 0, 1  # control words of latency.h

_KEY = np.dtype([("tgid", "u4"), ("op", "u4"), ("bucket", "u2"), ("kind", "u2")])
_VALUE = np.dtype([("count", "u8"), ("sum", "u8"), ("max", "u8")])

Name = Callable[[int, int], str]


class HistogramCollector(Loaded):
    """Base of the collectors whose kernel side includes ``latency.h``."""

    name: str
    schema: str = "latency"
    source: ClassVar[str]
    offsets: ClassVar[Mapping[str, str]] = {}
    entries: ClassVar[int] = ENTRIES

    def __init__(
        self,
        workloads: WorkloadResolver | None = None,
        *,
        cache: Path | None = None,
        entries: int | None = None,
        defines: Mapping[str, int] | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self._workloads: WorkloadResolver = workloads or CommOnly()
        self._cache, self._defines = cache, dict(defines or {})
        self._entries = entries or self.entries
        self._wanted = wanted or Wanted()
        self._second = 0
        self._shift = self._most_shift = 0

    @classmethod
    def make(cls, shared: Shared, wanted: Wanted | None = None) -> Self:
        """Make it as the agent runs it, or a live gadget that counts one process only."""
        return cls(shared.workloads, wanted=wanted)

    def relieve(self, options: AgentOptions, effort: float) -> None:  # noqa: ARG002 - of every collector's
        """Do only this share of the full effort."""
        # What an event costs before it is taken or not remains: half the effort means a quarter of the events.
        self.set_sampling(round(-2 * math.log2(effort)))

    def operation(self, op: int, kind: int) -> str:  # noqa: ARG002 - for those that have more than one
        """Return the text of an operation."""
        return ""

    def defines(self) -> dict[str, int]:
        """Return the constants that the kernel side needs."""
        return {}

    def set_sampling(self, shift: int) -> None:
        """Take one event in ``2**shift`` from now on, each standing for all of them; 0 takes all.

        For those whose kernel side draws a weight (``draw_weight``); others go on taking all. Rows tell the largest
        period of their interval.
        """
        self._shift = min(max(shift, 0), MAX_SHIFT)
        self._most_shift = max(self._most_shift, self._shift)
        if self._programs:
            self._set_control(_SHIFT, self._shift)

    def _set_control(self, index: int, value: int) -> None:
        assert self._programs is not None
        self._programs.maps["control"].update(struct.pack("<I", index), struct.pack("<I", value))

    def start(self) -> None:
        """Load and attach.

        Raises:
            KernelError: it cannot run here; the message says what is missing.
        """
        programs = load(
            self.source,
            self.defines() | self._defines | self._wanted.defines(),
            offsets={**fields.TASK, **self.offsets},
            sizes={"hist_0": self._entries, "hist_1": self._entries},
            cache=self._cache,
        )
        with programs.kept():
            self._wanted.tell(programs)
            programs.attach()
        self._programs = programs
        self._set_control(_SHIFT, self._shift)

    def collect(self, start_ns: int, end_ns: int) -> Batch | None:  # noqa: ARG002 - rows carry the start only
        """Return the histograms of what ended since the last call; None when nothing did."""
        programs = self._programs
        if programs is None:
            return None
        drained = programs.maps[f"hist_{self._second}"]
        self._second ^= 1
        self._set_control(_BUFFER, self._second)
        shift, self._most_shift = self._most_shift, self._shift
        wait_until_unused(programs.maps["users"], self._second ^ 1)
        keys, values = drained.drain(_KEY, _VALUE)
        lost = self.lost()
        if not len(keys):
            return Batch(pa.RecordBatch.from_pylist([], schema=LATENCY), 0, lost) if lost else None
        batch = rows(keys, values, start_ns, self.name, self.operation, self._identities, 1 << shift)
        return Batch(batch, int(values["count"].sum()), lost)

    def _identities(self, tgids: NDArray[np.uint32]) -> dict[str, pa.DictionaryArray]:
        assert self._programs is not None
        names = self._programs.maps["names"]
        comms, cgroups = [], np.zeros(len(tgids), np.uint64)
        for at, tgid in enumerate(tgids):
            raw = names.lookup(struct.pack("<I", int(tgid)))
            comms.append(raw[:16].partition(b"\0")[0].decode(errors="replace") if raw else "")
            if raw:
                cgroups[at] = struct.unpack_from("<Q", raw, 16)[0]
        return self._workloads.columns(tgids, cgroups, comms)


def rows(
    keys: NDArray[Any],
    values: NDArray[Any],
    time_ns: int,
    probe: str,
    operation: Name,
    identities: Callable[[NDArray[np.uint32]], dict[str, pa.DictionaryArray]],
    period: int = 1,
) -> pa.RecordBatch:
    """Group drained (tgid, op, kind, bucket) elements to one row for each (workload, operation)."""
    tgids, of_tgid = np.unique(keys["tgid"], return_inverse=True)
    columns = identities(tgids)
    codes = np.stack([columns[name].indices.to_numpy() for name in WORKLOAD], axis=1)
    _, first, of_workload = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    joined = keys["op"].astype(np.uint64) << np.uint64(16) | keys["kind"]
    operations, of_operation = np.unique(joined, return_inverse=True)
    # Different (op, kind) may have one text, such as two devices that are gone.
    texts = pa.array([operation(int(each >> np.uint64(16)), int(each) & 0xFFFF) for each in operations], pa.string())
    text = texts.dictionary_encode()
    of_operation = text.indices.to_numpy()[of_operation]
    row = of_workload.reshape(-1)[of_tgid] * len(text.dictionary) + of_operation
    composite = row.astype(np.int64) << 16 | keys["bucket"]
    order = np.argsort(composite, kind="stable")
    ordered = composite[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.add.reduceat(values["count"][order], starts)
    sums = np.add.reduceat(values["sum"][order], starts)
    maxima = np.maximum.reduceat(values["max"][order], starts)
    cells = ordered[starts]
    row_of_cell = cells >> 16
    row_starts = np.flatnonzero(np.r_[True, row_of_cell[1:] != row_of_cell[:-1]])
    row_ids = row_of_cell[row_starts]
    places = pa.array(np.r_[row_starts, len(cells)].astype(np.int32), pa.int32())
    who = pa.array(first[row_ids // len(text.dictionary)])
    arrays = {
        "time_ns": pa.array(np.full(len(row_ids), time_ns, np.int64)),
        **{name: columns[name].take(who) for name in WORKLOAD},
        "probe": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(row_ids), np.int32)), pa.array([probe])),
        "operation": pa.DictionaryArray.from_arrays(
            pa.array((row_ids % len(text.dictionary)).astype(np.int32)), text.dictionary
        ),
        "buckets": pa.ListArray.from_arrays(places, pa.array((cells & 0xFFFF).astype(np.uint16))),
        "counts": pa.ListArray.from_arrays(places, pa.array(counts)),
        "count": pa.array(np.add.reduceat(counts, row_starts)),
        "sum_ns": pa.array(np.add.reduceat(sums, row_starts)),
        "max_ns": pa.array(np.maximum.reduceat(maxima, row_starts)),
        "period": pa.array(np.full(len(row_ids), period, np.uint32)),
    }
    return pa.RecordBatch.from_arrays([arrays[each.name].cast(each.type) for each in LATENCY], schema=LATENCY)
