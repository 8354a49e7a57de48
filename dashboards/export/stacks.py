"""A selection's distinct stacks with their sums, as columns: what every export is written from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dashboards import reading
from dashboards.queries import Query
from dashboards.selection import Selection
from dashboards.store import Store
from streams.schema.errors import PerfstreamError
from streams.schema.messages import IDENTITY

MAX_STACKS = 250_000
"""What perfstream itself takes in one pprof profile."""

STACKS = Query(
    "stacks",
    """\
SELECT stack_value AS value, if(empty(known.functions), ['[stack not stored]'], known.functions) AS functions,
       if(empty(known.functions), [''], known.files) AS files,
       if(empty(known.functions), [toUInt32(0)], known.lines) AS lines
FROM (SELECT stack_id, sum(value) AS stack_value FROM samples WHERE @where@ GROUP BY stack_id) AS counted
LEFT JOIN
(
    SELECT stack_id, CAST(any(functions) AS Array(String)) AS functions, CAST(any(files) AS Array(String)) AS files,
           any(lines) AS lines
    FROM stacks WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@) GROUP BY stack_id
) AS known USING (stack_id)
WHERE stack_value != 0
ORDER BY value DESC, functions, files, lines LIMIT {n:UInt32}""",
    IDENTITY,
    typed=True,
)
PERIOD = Query(
    "period",
    "SELECT if(uniqExact(period) = 1, any(period), 0) AS period FROM samples WHERE @where@",
    IDENTITY,
    typed=True,
    rolls_up=False,
)


@dataclass(frozen=True, slots=True)
class Stacks:
    """Stacks root first, as columns.

    Stack i is ``frame[start[i] : start[i + 1]]``, indices into ``names``, ``files`` and ``lines``. ``value`` has the
    shape (stacks,) and is in ``unit``, as is ``period`` (0 where samples differ in it, or it is not known).
    """

    type: str
    unit: str
    period: int
    begin: datetime
    end: datetime
    value: NDArray[np.int64]
    start: NDArray[np.int64]
    frame: NDArray[np.int64]
    names: list[str]
    files: list[str]
    lines: NDArray[np.int64]


def read(store: Store, selection: Selection) -> Stacks:
    """Return a selection's stacks, the largest first.

    Raises:
        PerfstreamError: there are more than ``MAX_STACKS``.
    """
    table = store.columns(*reading.source(STACKS, selection).bound(selection, n=MAX_STACKS + 1))
    if table.num_rows > MAX_STACKS:
        raise PerfstreamError(
            f"the selection has more than {MAX_STACKS:,} stacks; select a shorter time or one service"
        )
    value, functions, files, lines = (
        table.column(name).combine_chunks() for name in ("value", "functions", "files", "lines")
    )
    start = functions.offsets.to_numpy().astype(np.int64)
    coded = [column.flatten().dictionary_encode() for column in (functions, files)]
    line = lines.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    # A frame's number: three columns as one key, of which each distinct one is kept.
    codes = [column.indices.to_numpy().astype(np.int64) for column in coded]
    _, code = np.unique(codes[0] * (len(coded[1].dictionary) + 1) + codes[1], return_inverse=True)
    _, first, frame = np.unique(code * (1 << 32) + line, return_index=True, return_inverse=True)
    whole = reading.whole(store, selection)
    rolled_up = reading.source(PERIOD, selection) is not PERIOD
    period = 0 if rolled_up else int(store.rows(*PERIOD.bound(selection))[0]["period"])
    return Stacks(
        selection.type, whole[1] or "count", period, selection.start, selection.end,
        value.to_numpy(zero_copy_only=False).astype(np.int64), start - start[0], frame.astype(np.int64),
        coded[0].dictionary.take(pa.array(codes[0][first])).to_pylist(),
        coded[1].dictionary.take(pa.array(codes[1][first])).to_pylist(),
        line[first],
    )  # fmt: skip
