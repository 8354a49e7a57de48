"""Rows of the top and snapshot gadgets as events of the contract, and back: the same row at both ends.

Who a row is of stands in the event's own columns, everything else as text in ``attributes``, under the gadget's own
names; numbers come back exactly. What is left out of a bounded table is one row ``(other)`` with the sums, so that sums
over the rows stay true.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from collectors.top.base import UNKNOWN_UID
from streams.schema.messages import EVENT, OTHER, WORKLOAD
from streams.schema.text_bounds import MAX_VALUE, longest

ROWS = "rows"
"""Of ``(other)`` only: how many rows it stands for. In batches a column, null in every other row."""
_SHARED = frozenset({*WORKLOAD, "pid", "ppid", "uid", "comm"})


def weights(rows: pa.RecordBatch, by: str) -> NDArray[np.float64]:
    """Return what rows are ranked by: the sum of the columns in ``by`` (``a,b``), shape (rows,)."""
    columns = (rows.column(name).to_numpy(zero_copy_only=False) for name in by.split(","))
    total: NDArray[np.float64] = np.sum([column.astype(np.float64) for column in columns], axis=0)
    return total


def bounded(rows: pa.RecordBatch, weight: NDArray[np.float64], most: int, sums: Sequence[str]) -> pa.RecordBatch:
    """Return the ``most`` rows of greatest weight in their order, and what the others come to as one more.

    Args:
        rows: whose columns begin with ``WHO``.
        weight: of each row.
        most: how many are kept.
        sums: the columns that are added up in ``(other)``; in the rest it has nothing (null).

    Returns:
        The columns of ``rows`` and ``ROWS``.
    """
    schema = rows.schema.append(pa.field(ROWS, pa.uint64()))
    if rows.num_rows <= most:
        return pa.RecordBatch.from_arrays([*rows.columns, pa.nulls(rows.num_rows, pa.uint64())], schema=schema)
    ranked = np.argsort(-weight, kind="stable")
    kept, others = rows.take(pa.array(np.sort(ranked[:most]))), rows.take(pa.array(ranked[most:]))
    same = dict.fromkeys(WORKLOAD, "") | {"service": OTHER, "comm": OTHER, "pid": 0, "uid": UNKNOWN_UID}
    one = same | {name: pc.sum(others.column(name)).as_py() for name in sums} | {ROWS: others.num_rows}
    ends = (pa.array([one.get(field.name)], field.type) for field in schema)
    columns = (*kept.columns, pa.nulls(most, pa.uint64()))
    return pa.RecordBatch.from_arrays(
        [pa.concat_arrays(pair) for pair in zip(columns, ends, strict=True)], schema=schema
    )


def as_events(kind: str, time_ns: int, rows: pa.RecordBatch, detail: Sequence[str]) -> pa.RecordBatch:
    """Return rows as ``EVENT``.

    Args:
        kind: the gadget's name in the catalogue.
        time_ns: of all of them.
        rows: what ``bounded`` returned.
        detail: the columns that ``detail`` is made of.
    """
    count = rows.num_rows
    own = [name for name in rows.schema.names if name not in _SHARED]
    texts = {name: rows.column(name).cast(pa.string()) for name in own}
    parts = [pc.fill_null(texts[name], "") for name in detail]
    details = pc.binary_join_element_wise(*parts, " ") if parts else pa.array([""] * count, pa.string())
    if count and (last := rows.column(ROWS)[-1].as_py()):
        details = pa.concat_arrays([details[:-1], pa.array([f"{last} more"], pa.string())])
    zeros = np.zeros(count, np.uint64)
    arrays = {
        "time_ns": pa.array(np.full(count, time_ns, np.int64)),
        "kind": pa.array([kind] * count, pa.string()),
        "ppid": pa.array(zeros),
        "result": pa.array(zeros),
        "latency_ns": pa.array(zeros),
        "detail": details,
        "attributes": _attributes(texts, count),
    } | {name: rows.column(name) for name in rows.schema.names if name in _SHARED}
    columns = []
    for field in EVENT:
        column = pc.fill_null(arrays[field.name], 0) if field.name == "ppid" else arrays[field.name]
        encoded = column.dictionary_encode() if pa.types.is_dictionary(field.type) else column
        columns.append(encoded.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=EVENT)


def _attributes(texts: dict[str, pa.StringArray], count: int) -> pa.MapArray:
    """Return a map for each row, of the columns that have a value in it."""
    names = len(texts)
    by_row = np.arange(names * count).reshape(names, count).T.ravel()
    items = pa.concat_arrays(texts.values()).take(pa.array(by_row))
    if longest(items) > MAX_VALUE:
        cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(items, 0, MAX_VALUE // 8), "…", "")
        items = pc.if_else(pc.greater(pc.binary_length(items), MAX_VALUE), cut, items)
    there = items.is_valid()
    each = there.to_numpy(zero_copy_only=False).reshape(count, names).sum(axis=1)
    keys = pa.array(list(texts) * count, pa.string()).filter(there)
    offsets = pa.array(np.concatenate([[0], np.cumsum(each)]), pa.int32())
    return pa.MapArray.from_arrays(offsets, keys, items.filter(there))


def from_events(events: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    """Return the rows that were published as ``events``: these columns, and ``ROWS``.

    A number that is missing is null, a text "".

    Raises:
        pa.ArrowInvalid: an attribute is no number where one belongs.
    """
    schema = columns.append(pa.field(ROWS, pa.uint64()))
    arrays = []
    for field in schema:
        if field.name in _SHARED:
            arrays.append(events.column(field.name).cast(field.type))
            continue
        found = pc.map_lookup(events.column("attributes"), pa.scalar(field.name, pa.string()), "first")
        arrays.append(pc.fill_null(found, "") if pa.types.is_string(field.type) else found.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
