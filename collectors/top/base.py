"""The common part of the ``top`` gadgets: rows of one interval, as columns whose names carry their units.

A column that ends in ``_ns``, ``_bytes`` or ``_percent`` is shown with that unit. Every row begins with ``WHO``: the
workload and the process. What the kernel counts is exact: in a row, or in ``lost`` when there was no room for one more
row. Memory in the kernel: two hash maps of ``rows`` elements, and 0.5 MB of names.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike, NDArray

from collectors.base import CommOnly, WorkloadResolver
from collectors.bpf import fields
from collectors.bpf.buffers import wait_until_unused
from collectors.bpf.kernel import RunStats
from collectors.bpf.loader import load
from collectors.loaded import Loaded
from collectors.processes import process
from collectors.wanted import Wanted
from streams.schema.messages import WORKLOAD

if TYPE_CHECKING:
    from collectors.catalogue import Shared

UNKNOWN_UID = 0xFFFFFFFF
"""As the kernel has it (``INVALID_UID``): of a process that nothing is known of any more."""

WHO = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in WORKLOAD),
        pa.field("pid", pa.uint32()),
        pa.field("uid", pa.uint32()),
        pa.field("comm", pa.string()),
    ]
)


def schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    """Return ``WHO`` and these columns."""
    return pa.schema([*WHO, *(pa.field(name, kind) for name, kind in columns)])


class Top(Protocol):
    """A gadget that says who did most in each interval."""

    name: str
    columns: ClassVar[pa.Schema]
    """What ``collect`` returns; begins with ``WHO``."""
    shown: ClassVar[tuple[str, ...]]
    """The columns that are shown unless others are asked for."""
    sort: ClassVar[str]
    """What the rows are sorted by unless something else is asked for, most first; several: by the sum."""
    sums: ClassVar[tuple[str, ...]]
    """The columns that can be added up over rows."""
    counted: ClassVar[tuple[str, ...]]
    """The columns that say how many events, of which ``lost`` would be some, a row is; none: it is one."""
    detail: ClassVar[tuple[str, ...]]
    """What an event of the agent says first, beside who it is of."""

    def start(self) -> None:
        """Load and attach, or take the first look.

        Raises:
            KernelError: it cannot run here; the message says what is missing.
        """

    def collect(self, seconds: float) -> pa.RecordBatch:
        """Return what happened since the last call, ``seconds`` ago, unsorted."""

    def lost(self) -> int:
        """Return how many events since the last call are in no row."""

    def stats(self) -> RunStats:
        """Return what the kernel side has cost since ``start``."""

    def memory_bytes(self) -> int:
        """Return the kernel memory that it holds."""

    def close(self) -> None:
        """Detach and free. May be called twice, and without ``start``."""


def who(
    workloads: WorkloadResolver, pids: NDArray[np.uint32], cgroups: NDArray[np.uint64], uids: NDArray[np.uint32],
    comms: list[str],
) -> dict[str, pa.Array]:  # fmt: skip
    """Return the columns of ``WHO``, each as long as the arguments; number 0 is nobody."""
    columns = workloads.columns(pids, cgroups, comms)
    texts = {name: columns[name].cast(pa.string()) for name in WORKLOAD}
    texts["service"] = pc.if_else(pa.array(pids == 0), pa.array(comms, pa.string()), texts["service"])
    return texts | {"pid": pa.array(pids), "uid": pa.array(uids), "comm": pa.array(comms, pa.string())}


class WithoutPrograms:
    """Base of the gadgets that look at what the kernel keeps anyway."""

    def lost(self) -> int:
        """Return 0: what is not seen is not known."""
        return 0

    def stats(self) -> RunStats:
        """Return nothing: it has no programs."""
        return RunStats()

    def memory_bytes(self) -> int:
        """Return nothing: it has no maps."""
        return 0


class KernelTop(Loaded):
    """Base of the gadgets whose kernel side includes ``top.h``."""

    name: str
    columns: ClassVar[pa.Schema]
    shown: ClassVar[tuple[str, ...]]
    sort: ClassVar[str]
    source: ClassVar[str]
    offsets: ClassVar[Mapping[str, str]] = {}
    key: ClassVar[DTypeLike]
    """The key of a row as the kernel writes it, with ``tgid``."""
    values: ClassVar[tuple[str, ...]]
    """The columns that the numbers of a row are, in their order."""
    sums: ClassVar[tuple[str, ...]]
    counted: ClassVar[tuple[str, ...]]
    detail: ClassVar[tuple[str, ...]]
    rows: ClassVar[int] = 8192

    def __init__(
        self,
        workloads: WorkloadResolver | None = None,
        *,
        cache: Path | None = None,
        rows: int | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self._workloads: WorkloadResolver = workloads or CommOnly()
        self._cache = cache
        self._rows = rows or self.rows
        self._wanted = wanted or Wanted()
        self._second = 0

    @classmethod
    def make(cls, shared: Shared, wanted: Wanted | None = None) -> Self:
        """Make it; ``wanted`` is looked at in the kernel."""
        return cls(shared.workloads, wanted=wanted)

    def defines(self) -> dict[str, int]:
        """Return the constants that the kernel side needs."""
        return {}

    def describe(self, keys: NDArray[Any]) -> dict[str, pa.Array]:
        """Return the columns that the keys of rows become."""
        raise NotImplementedError

    def start(self) -> None:
        """Load and attach.

        Raises:
            KernelError: it cannot run here; the message says what is missing.
        """
        programs = load(
            self.source,
            self.defines() | self._wanted.defines(),
            offsets={**fields.TASK, **self.offsets},
            sizes={"rows_0": self._rows, "rows_1": self._rows},
            cache=self._cache,
        )
        with programs.kept():
            self._wanted.tell(programs)
            programs.attach()
        self._programs = programs

    def collect(self, seconds: float) -> pa.RecordBatch:  # noqa: ARG002 - of every gadget's
        """Return what happened since the last call."""
        assert self._programs is not None
        full = self._second
        self._second ^= 1
        self._programs.maps["control"].update(bytes(4), struct.pack("<I", self._second))
        wait_until_unused(self._programs.maps["users"], full)
        count = len(self.values)
        keys, numbers = self._programs.maps[f"rows_{full}"].drain(self.key, np.dtype([("n", "u8", (count,))]))
        table = numbers["n"].reshape(-1, count)
        arrays = self._who(keys["tgid"]) | self.describe(keys)
        arrays |= {name: pa.array(np.ascontiguousarray(table[:, at])) for at, name in enumerate(self.values)}
        return pa.RecordBatch.from_arrays(
            [arrays[each.name].cast(each.type) for each in self.columns], schema=self.columns
        )

    def _who(self, tgids: NDArray[np.uint32]) -> dict[str, pa.Array]:
        assert self._programs is not None
        names = self._programs.maps["names"]
        unique, inverse = np.unique(tgids, return_inverse=True)
        comms, cgroups = [], np.zeros(len(unique), np.uint64)
        uids = np.full(len(unique), UNKNOWN_UID, np.uint32)
        for at, tgid in enumerate(unique.tolist()):
            raw = names.lookup(struct.pack("<I", tgid))
            if raw:
                comms.append(raw[:16].partition(b"\0")[0].decode(errors="replace"))
                cgroups[at], uids[at] = struct.unpack_from("<QI", raw, 16)
            elif (alive := process(tgid)) is not None:  # forgotten, or the kernel's own
                comms.append(alive.comm)
                uids[at] = alive.uid
            else:
                comms.append("")
        found = who(self._workloads, unique.astype(np.uint32), cgroups, uids, comms)
        place = pa.array(inverse.astype(np.int64))
        return {name: column.take(place) for name, column in found.items()}
