"""Which rows a gadget shows."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.schema.errors import UsageError

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]+)\Z")


def duration_ns(text: str) -> int:
    """Return a duration such as ``250us``, ``1.5ms`` or ``2s`` in nanoseconds.

    Raises:
        UsageError: it is none.
    """
    found = _DURATION.match(text.strip())
    if found is None or found[2] not in _UNITS:
        raise UsageError(f"{text!r} is not a duration; write it like 250us, 1.5ms or 2s")
    return round(float(found[1]) * _UNITS[found[2]])


@dataclass(frozen=True, slots=True)
class Filters:
    """Every condition must hold; an empty one always does."""

    namespace: str = ""
    pod: str = ""
    container: str = ""
    service: str = ""
    comm: str = ""
    pid: int | None = None
    uid: int | None = None
    failed: bool = False
    min_latency_ns: int = 0
    node: str = ""

    def apply(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that are wanted; a condition on a column that the schema lacks is left out."""
        keep = np.ones(rows.num_rows, dtype=bool)
        for name in ("node", "namespace", "pod", "container", "service", "comm"):
            wanted = getattr(self, name)
            if wanted and name in rows.schema.names:
                keep &= pc.equal(rows.column(name).cast(pa.string()), wanted).to_numpy(zero_copy_only=False)
        for name in ("pid", "uid"):
            number = getattr(self, name)
            if number is not None and name in rows.schema.names:
                keep &= rows.column(name).to_numpy() == number
        if self.failed and "result" in rows.schema.names:
            keep &= rows.column("result").to_numpy() != 0
        if self.min_latency_ns and "latency_ns" in rows.schema.names:
            keep &= rows.column("latency_ns").to_numpy() >= self.min_latency_ns
        return rows.filter(pa.array(keep))
