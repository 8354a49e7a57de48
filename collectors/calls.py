"""The common part of the collectors of system calls, whose kernel side includes ``call.h``.

Rows are told at the exit of a call, so only exits that the kernel skipped are events lost; a skipped enter costs its
row the path and the latency. There may be many rows: what a detail says is worked out once for each different one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.events import Attributes, EventCollector

_ATTRIBUTES = pa.map_(pa.string(), pa.string())


class CallCollector(EventCollector):
    """Base of the collectors of system calls."""

    ring_bytes: ClassVar[int] = 4 << 20

    def describe_detail(self, detail: bytes) -> tuple[str, Attributes]:
        """Return the detail and the attributes that the bytes of a record's detail say."""
        raise NotImplementedError

    def described(self, records: NDArray[Any]) -> tuple[pa.Array, pa.Array]:
        """Return the columns ``detail`` and ``attributes``."""
        raw = np.ascontiguousarray(records["detail"])
        column = pa.Array.from_buffers(pa.binary(raw.dtype.itemsize), len(raw), [None, pa.py_buffer(raw.tobytes())])
        codes = column.dictionary_encode()
        found = [self.describe_detail(each) for each in codes.dictionary.to_pylist()]
        details = pa.array([detail for detail, _ in found], pa.string())
        attributes = pa.array([each for _, each in found], _ATTRIBUTES)
        return details.take(codes.indices), attributes.take(codes.indices)

    def missed(self) -> int:
        """Return how many exits the kernel skipped."""
        assert self._programs is not None
        told = self._programs.stats_by_program().items()
        return sum(each.missed for name, each in told if "sys_exit" in name)
