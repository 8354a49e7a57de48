"""Many small profiles to one message: rows of the contract, each stack once.

A message costs its readers about as much as a thousand rows, so what arrives together travels together. Cost: well
under a millisecond for a profile of 1,000 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.ingest import pprof_reader
from collectors.scrapers.rows import Columns
from streams.schema.messages import PROFILE, WORKLOAD

MAX_ROWS = 100_000
MAX_BYTES = 12 * 1024 * 1024
"""Of a message's stacks, before it is compressed."""
MAX_TEXT = 48 * 1024 * 1024
"""Of a message's stacks as text, which no reader should have to hold more of at a time."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One series as it is published. ``dropped`` counts the values that are none: negative ones."""

    identity: dict[str, str]
    columns: Columns
    start_ns: int
    end_ns: int
    kind: NDArray[np.int64]
    stack: NDArray[np.int64]
    stack_bytes: int
    text_bytes: int
    dropped: int = 0

    @property
    def rows(self) -> int:
        """Return how many rows it becomes."""
        return len(self.kind)

    @property
    def key(self) -> tuple[str, str]:
        """Return (cluster, node): what a message may hold of."""
        return self.identity["cluster"], self.identity["node"]

    @property
    def bytes(self) -> int:
        """Return about how much memory it holds."""
        return self.stack_bytes + 16 * self.columns.values.size + 16 * self.rows


def piece(identity: dict[str, str], columns: Columns, start_ns: int, end_ns: int) -> Piece:
    """Return a series ready to be published; zeros make no row, negative values are dropped and counted."""
    kind, stack = np.nonzero(columns.values.T > 0)
    dropped = int(np.count_nonzero(columns.values < 0))
    return _piece(identity, columns, start_ns, end_ns, kind, stack, dropped)


def _piece(
    identity: dict[str, str],
    columns: Columns,
    start_ns: int,
    end_ns: int,
    kind: NDArray[np.int64],
    stack: NDArray[np.int64],
    dropped: int,
) -> Piece:
    stacks = columns.stacks
    size = 8 * len(stacks) + 4 * len(stacks.codes) + stacks.frames.nbytes
    return Piece(identity, columns, start_ns, end_ns, kind, stack, size, int(stacks.text_bytes().sum()), dropped)


def fits(rows: int, stack_bytes: int, text_bytes: int) -> bool:
    """Return whether a message may hold so much."""
    return rows <= MAX_ROWS and stack_bytes <= MAX_BYTES and text_bytes <= MAX_TEXT


def split(one: Piece) -> list[Piece]:
    """Return a series as pieces within a message's bounds; the first carries ``dropped``."""
    if fits(one.rows, one.stack_bytes, one.text_bytes):
        return [one]
    c = one.columns
    order = np.argsort(one.stack, kind="stable")
    # As text, a stack is larger than its part of the frames and codes, so one bound is enough.
    before = np.concatenate(([0], np.cumsum(c.stacks.text_bytes() + 8)))
    out: list[Piece] = []
    begin = 0
    while begin < len(order):
        room = before[one.stack[order[begin]]] + MAX_BYTES
        end = min(begin + MAX_ROWS, int(np.searchsorted(before[one.stack[order] + 1], room, side="right")))
        at = order[begin : max(end, begin + 1)]
        used, stack = np.unique(one.stack[at], return_inverse=True)
        part = Columns(
            c.ids[used], c.stacks.take(used).compact(), c.types, c.units, c.periods, c.values[used], c.events[used]
        )
        dropped = 0 if out else one.dropped
        out.append(_piece(one.identity, part, one.start_ns, one.end_ns, one.kind[at], stack, dropped))
        begin += len(at)
    return out


def merge(pieces: Sequence[Piece]) -> tuple[pa.RecordBatch, int]:
    """Return (rows of the ``profile`` schema, events they stand for) of pieces of one cluster and node."""
    sizes = [one.rows for one in pieces]
    owner = np.repeat(np.arange(len(pieces)), sizes)
    stack_counts = np.array([len(one.columns.stacks) for one in pieces])
    first = np.cumsum(stack_counts) - stack_counts
    stack = np.concatenate([one.stack for one in pieces]) + first[owner]
    # Only stacks that a row has, and each once whichever series bring it.
    present = np.zeros(int(stack_counts.sum()), np.bool_)
    present[stack] = True
    used = np.flatnonzero(present)
    ids = np.concatenate([one.columns.ids for one in pieces])
    number, at = pprof_reader.first_seen(ids[used])
    chosen = used[at]  # ascending: all of them, when they are as many
    stacks = pprof_reader.merged([one.columns.stacks for one in pieces])
    dictionary = (stacks if len(chosen) == len(present) else stacks.take(chosen)).entries(ids[chosen])
    codes = number[(np.cumsum(present) - 1)[stack]]
    arrays = [pa.array(np.array([one.start_ns for one in pieces], np.int64)[owner])]
    arrays += [_coded([one.identity[name] for one in pieces], owner) for name in WORKLOAD]
    kinds = np.array([len(one.columns.types) for one in pieces])
    column = np.concatenate([one.kind for one in pieces]) + (np.cumsum(kinds) - kinds)[owner]
    arrays += [
        _coded([name for one in pieces for name in one.columns.types], column),
        _coded([unit for one in pieces for unit in one.columns.units], column),
        pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32, copy=False)), dictionary),
        pa.array(np.concatenate([one.columns.values[one.stack, one.kind] for one in pieces])),
        pa.array(np.array([period for one in pieces for period in one.columns.periods], np.int64)[column]),
    ]
    events = sum(max(0, int(one.columns.events.sum())) for one in pieces)
    return pa.RecordBatch.from_arrays(arrays, schema=PROFILE), min(events, (1 << 62))


def _coded(names: list[str], at: NDArray[np.int64]) -> pa.DictionaryArray:
    """Return the column ``names[at]``."""
    numbers: dict[str, int] = {}
    place = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(place[at]), pa.array(list(numbers), pa.string()))
