"""How long text may be in a record, and how many attributes a row may have.

Checked on dictionaries where a column has one, so the cost follows the distinct values: about 130 microseconds for a
profile of 10,000 rows. Lengths are bytes of UTF-8.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.schema.stack_columns import StackColumns
from streams.schema.stacks import FRAME_SEPARATOR, MAX_FIELD, MAX_STACK_BYTES

MAX_TEXT = 4 * MAX_FIELD
"""A name: of a service, a function, a command, ...; whatever ``stacks.frame_text`` lets through fits."""
MAX_VALUE = 64 * 1024
"""Free text: an event's ``detail``, the value of an attribute."""
MAX_ATTRIBUTES = 256
MAX_STACKS_BYTES = 512 * 1024 * 1024
"""Of all distinct stacks of a message as text, which its readers may make of it."""


def overlong(batch: pa.RecordBatch) -> str:
    """Return what is beyond its bound in a validated batch, in words; "" when nothing is."""
    parts: tuple[tuple[pa.StringArray, int], ...]
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_map(kind):
            if len(column) and np.diff(column.offsets.to_numpy()).max() > MAX_ATTRIBUTES:
                return f"a row has more than {MAX_ATTRIBUTES} {name}"
            parts = ((column.keys, MAX_TEXT), (column.items, MAX_VALUE))
        elif pa.types.is_dictionary(kind) and pa.types.is_struct(kind.value_type):
            if found := _wrong_stack(StackColumns.from_entries(column.dictionary)):
                return found
            continue
        elif pa.types.is_dictionary(kind):
            parts = ((column.dictionary, MAX_TEXT),)
        elif pa.types.is_string(kind):
            parts = ((column, MAX_VALUE),)
        else:
            continue
        for values, bound in parts:
            if longest(values) > bound:
                return f"a text in column {name!r} is longer than {bound} bytes"
    return ""


def _wrong_stack(stacks: StackColumns) -> str:
    """Return what is wrong with stacks, in words: as text, each and all together are bounded."""
    if not len(stacks):
        return ""
    depths = stacks.depths
    if depths.min() == 0:
        return "a stack has no frames"
    # One look at all bytes; they may hold more than the frames.
    data = stacks.frames.buffers()[2]
    suspect = data is not None and FRAME_SEPARATOR.encode() in memoryview(data).tobytes()
    if suspect and pc.any(pc.match_substring(stacks.frames, FRAME_SEPARATOR)).as_py():
        return "a frame's text holds a line feed"
    most = longest(stacks.frames) + len(FRAME_SEPARATOR)
    if most * int(depths.max()) <= MAX_STACK_BYTES and most * len(stacks.codes) <= MAX_STACKS_BYTES:
        return ""
    sizes = stacks.text_bytes()
    if sizes.max() > MAX_STACK_BYTES:
        return f"a stack is longer than {MAX_STACK_BYTES} bytes as text"
    if sizes.sum() > MAX_STACKS_BYTES:
        return f"the stacks are longer than {MAX_STACKS_BYTES >> 20} MB as text"
    return ""


def longest(values: pa.StringArray) -> int:
    """Return the length of the longest text in bytes, 0 when there is none."""
    return int(pc.max(pc.binary_length(values)).as_py() or 0)


def cut(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with overlong names and values cut, so that one strange process does not cost a whole message.

    Stacks are bounded where they are made (``stacks.join``), attributes by their collectors.
    """
    for at, (field, column) in enumerate(zip(batch.schema, batch.columns, strict=True)):
        if pa.types.is_string(field.type) and longest(column) > MAX_VALUE:
            shorter = _shorter(column, MAX_VALUE)
        elif pa.types.is_dictionary(field.type) and pa.types.is_string(field.type.value_type):
            if longest(column.dictionary) <= MAX_TEXT:
                continue
            shorter = pa.DictionaryArray.from_arrays(column.indices, _shorter(column.dictionary, MAX_TEXT))
        else:
            continue
        batch = batch.set_column(at, field, shorter)
    return batch


def _shorter(values: pa.StringArray, bound: int) -> pa.StringArray:
    # A character has at most four bytes.
    return pc.if_else(
        pc.greater(pc.binary_length(values), bound), pc.utf8_slice_codeunits(values, 0, bound // 4), values
    )
