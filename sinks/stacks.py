"""Stacks: which are not in the store yet, and their columns.

The set of known ids is bounded and starts afresh every day (UTC), so that a stack in use is written at least daily and
outlives its TTL. A stack that is written twice is one row after a merge. An id that is not known is written before
the samples that refer to it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks.rows import Message
from streams.schema import stacks as text
from streams.schema.stack_columns import StackColumns, merged

DAY_S = 86_400
MAX_KNOWN = 1_000_000
"""About 100 MB of ids at most; beyond it the set starts afresh, which costs writing them again, nothing else."""


class KnownStacks:
    """The ids that were written today. Thread-safe."""

    def __init__(self, bound: int = MAX_KNOWN, now: Callable[[], float] = time.time) -> None:
        self._known: set[int] = set()
        self._day = -1
        self._bound = bound
        self._now = now
        self._lock = threading.Lock()

    def unknown(self, ids: Iterable[int]) -> set[int]:
        """Return those ids that are not known to be in the store."""
        with self._lock:
            day = int(self._now()) // DAY_S
            if day != self._day or len(self._known) > self._bound:
                self._known.clear()
                self._day = day
            return set(ids) - self._known

    def stored(self, ids: Iterable[int]) -> None:
        """Record that these ids have been written."""
        with self._lock:
            self._known.update(ids)

    def forget(self) -> None:
        """Take nothing for known, as after a change of the store."""
        with self._lock:
            self._known.clear()


def missing(messages: Sequence[Message], known: KnownStacks, now_s: int) -> tuple[pa.Table | None, set[int]]:
    """Return the rows of ``stacks`` that the store lacks (None: none), and their ids. The messages are lean."""
    parts = [m.stacks for m in messages if m.stacks is not None]
    if not parts:
        return None, set()
    listed = [part.field("id").to_numpy() for part in parts]
    wanted = known.unknown(np.concatenate(listed).tolist())
    if not wanted:
        return None, wanted
    new = np.fromiter(wanted, np.uint64, len(wanted))
    chosen = [np.flatnonzero(np.isin(ids, new)) for ids in listed]
    ids, first = np.unique(np.concatenate([ids[at] for ids, at in zip(listed, chosen, strict=True)]), return_index=True)
    pairs = zip(parts, chosen, strict=True)
    found = merged([StackColumns.from_entries(part).take(at).compact() for part, at in pairs]).take(first)
    return columns(pa.array(ids), found, now_s), wanted


def columns(ids: pa.UInt64Array, stacks: StackColumns, now_s: int) -> pa.Table:
    """Split frames' text into the columns of ``stacks``. Text that is not three fields becomes the function's name."""
    used, codes = np.unique(stacks.codes, return_inverse=True)
    split, at = _fields(stacks.frames.take(pa.array(used))), pa.array(codes)
    functions, files, lines = (column.take(at) for column in split)
    offsets = pa.array(stacks.offsets - stacks.offsets[0], pa.int32())
    return pa.table(
        {
            "stack_id": ids,
            "functions": pa.ListArray.from_arrays(offsets, functions),
            "files": pa.ListArray.from_arrays(offsets, files),
            "lines": pa.ListArray.from_arrays(offsets, lines),
            "last_seen": pa.array(np.full(len(ids), now_s), pa.int64()).cast(pa.timestamp("s", "UTC")),
        }
    )


def _fields(frames: pa.StringArray) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return (function, file, line) of each frame."""
    parts = pc.split_pattern(frames, text.FIELD_SEPARATOR)
    flat = parts.flatten()
    if bool(pc.all(pc.equal(pc.list_value_length(parts), 3)).as_py() is not False):
        at = np.arange(len(frames)) * 3
        function, file = flat.take(pa.array(at)), flat.take(pa.array(at + 1))
        with contextlib.suppress(pa.ArrowInvalid):
            return function, file, flat.take(pa.array(at + 2)).cast(pa.uint32())
    rows = [_tolerant(item) for item in frames.to_pylist()]
    return (
        pa.array([r[0] for r in rows], pa.string()),
        pa.array([r[1] for r in rows], pa.string()),
        pa.array([r[2] for r in rows], pa.uint32()),
    )


def _tolerant(frame: str) -> tuple[str, str, int]:
    fields = frame.split(text.FIELD_SEPARATOR)
    if len(fields) == 3 and fields[2].isascii() and fields[2].isdigit() and int(fields[2]) < 2**32:
        return fields[0], fields[1], int(fields[2])
    return frame.replace(text.FIELD_SEPARATOR, " ") or text.UNKNOWN, "", 0
