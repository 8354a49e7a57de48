"""Window results to record values of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from streams.schema import codec

if TYPE_CHECKING:
    from streams.schema.messages import Interval

Result = tuple[str, "Interval", pa.RecordBatch]

MAX_BYTES = 8 * 1024 * 1024
MAX_ROWS = 100_000


def encoded(
    result: Result, max_bytes: int = MAX_BYTES, max_rows: int = MAX_ROWS
) -> Iterator[tuple[bytes, list[tuple[str, bytes]]]]:
    """Yield (value, headers) of one result, in as many messages as the bound asks for; every row stands for itself."""
    schema, interval, batch = result
    if batch.num_rows > max_rows:
        yield from _halves(result, max_bytes, max_rows)
        return
    value, headers = codec.encode(schema, batch, interval)
    if len(value) > max_bytes and batch.num_rows > 1:
        yield from _halves(result, max_bytes, max_rows)
    else:
        yield value, headers


def _halves(result: Result, max_bytes: int, max_rows: int) -> Iterator[tuple[bytes, list[tuple[str, bytes]]]]:
    schema, interval, batch = result
    half = batch.num_rows // 2
    for part in (batch.slice(0, half), batch.slice(half)):
        yield from encoded((schema, interval, _compact(part)), max_bytes, max_rows)


def _compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with dictionaries of what its rows use; a slice carries the whole ones."""
    columns = [
        column.dictionary_decode().dictionary_encode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
