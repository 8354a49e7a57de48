"""The batches that were announced to the store: what a replay of a raw topic has to skip.

Kafka keeps an announcement only until the group is reset. The store keeps it beside the rows (table ``batches``), so
that a sink that starts anywhere in a partition knows which ranges are stored. A range that another one follows was
finished before the next was announced; the last of a run is finished when ``intervals``, which is inserted last, has a
row of it. Otherwise it is inserted again, the same range under the same token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sinks import client as store
from sinks.ledger import Batch, Known

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANGES = """
SELECT first_offset, any(end_offset) AS end, toUnixTimestamp64Milli(min(first_append)) AS first_ms,
    toUnixTimestamp64Milli(max(last_append)) AS last_ms
FROM batches
WHERE topic = {topic:String} AND partition = {partition:Int32} AND end_offset > {begin:Int64}
GROUP BY first_offset, first_append
ORDER BY first_offset, first_append
"""
_FINISHED = """
SELECT count() FROM intervals
WHERE topic = {topic:String} AND partition = {partition:Int32} AND offset >= {first:Int64} AND offset < {end:Int64}
    AND append_time >= fromUnixTimestamp64Milli({first_ms:Int64})
    AND append_time <= fromUnixTimestamp64Milli({last_ms:Int64})
"""
_MS = pa.timestamp("ms", "UTC")


@dataclass(slots=True)
class Ranges:
    """Ranges of one partition in the order of their offsets, without overlaps; times in milliseconds."""

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    first_ms: NDArray[np.int64]
    last_ms: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, int]]) -> Ranges:
        """Build from (first, end, first append, last append).

        Where ranges overlap, the topic was deleted and made anew: everything appended before the newer one is void.
        """
        columns = np.array(rows, np.int64).reshape(-1, 4)
        while len(columns):
            columns = columns[np.lexsort((columns[:, 2], columns[:, 0]))]
            overlaps = np.flatnonzero(columns[1:, 0] < columns[:-1, 1])
            if not len(overlaps):
                break
            since = max(int(np.maximum(columns[overlaps, 2], columns[overlaps + 1, 2]).max()), 0)
            kept = columns[columns[:, 2] >= since]
            # Overlaps of the same time are no deleted topic; keep the first of each rather than go on for ever.
            columns = kept if len(kept) < len(columns) else np.delete(columns, overlaps + 1, axis=0)
        return cls(*(columns[:, at] for at in range(4)))


class Announcements:
    """Reads and writes ``batches``. Blocking; for a thread of its own.

    Args:
        client: returns the connected client of the store.
    """

    def __init__(self, client: Callable[[], Any]) -> None:
        self._client = client

    def announce(self, batches: Sequence[Batch]) -> None:
        """Write batches down, all in one insert. Safe to repeat.

        Raises:
            StoreUnavailableError: the same call may succeed later.
            StoreRejectedError: the store refused it.
        """
        full = [batch for batch in batches if batch.records]
        if not full:
            return
        times = [[record.timestamp for record in batch.records] for batch in full]
        rows = pa.table(
            {
                "topic": pa.array([b.topic for b in full]).dictionary_encode(),
                "partition": pa.array([b.partition for b in full], pa.int32()),
                "first_offset": pa.array([b.first for b in full], pa.int64()),
                "end_offset": pa.array([b.end for b in full], pa.int64()),
                "first_append": pa.array([min(t) for t in times], pa.int64()).cast(_MS),
                "last_append": pa.array([max(t) for t in times], pa.int64()).cast(_MS),
            }
        )
        store.insert(self._client(), "batches", rows, None)

    def known(self, topic: str, partition: int, begin: int) -> Known:
        """Return the ranges that end after ``begin``.

        Raises:
            StoreUnavailableError: the same call may succeed later.
            StoreRejectedError: the store refused the question.
        """
        where = {"topic": topic, "partition": partition}
        with store.translated("read batches"):
            rows = self._client().query(_RANGES, parameters=where | {"begin": begin}).result_rows
            ranges = Ranges.of(rows)
            finished = np.ones(len(ranges.first), np.bool_)
            if len(finished):
                finished[:-1] = ranges.first[1:] == ranges.end[:-1]
                finished[-1] = False
            for at in np.flatnonzero(~finished):
                bounds = {
                    "first": int(ranges.first[at]), "end": int(ranges.end[at]),
                    "first_ms": int(ranges.first_ms[at]), "last_ms": int(ranges.last_ms[at]),
                }  # fmt: skip
                ((count,),) = self._client().query(_FINISHED, parameters=where | bounds).result_rows
                finished[at] = count > 0
        return Known(ranges.first, ranges.end, ranges.first_ms, ranges.last_ms, finished)
