"""Records to bytes and back: Arrow IPC with zstd, headers as text.

Decoding is total: whatever the bytes, the answer is a valid batch of today's schema or a ``SchemaError`` (which goes to
the dead-letter topic). Cost: about 2 million rows a second on one core, nearly all of it zstd.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from streams.schema import stack_columns, text_bounds
from streams.schema.errors import CorruptRecordError, UnknownVersionError
from streams.schema.histogram import BUCKETS
from streams.schema.ipc_bounds import inflated_bytes
from streams.schema.messages import OPTIONAL, PROFILE, PROFILE_1, RELEASED, SCHEMAS, Interval

Headers = Sequence[tuple[str, bytes]]

MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_DECODED_BYTES = 512 * 1024 * 1024
MAX_ROWS = 2_000_000
SCHEMA_HEADER = "schema"
_TIMES = frozenset({"start_ns", "end_ns"})
_COUNTS = frozenset({"sequence", "rows", "events", "lost"})
_INTEGERS = _TIMES | _COUNTS
_NOT_NEGATIVE = ("value", "period", "self", "total", "first_offset", "last_offset")
_UNSIGNED = ("count", "sum_ns", "max_ns", "latency_ns")
_MAX_INTEGER = (1 << 63) - 1
# One thread: at the size of a message, handing buffers to Arrow's pool costs more than compressing them.
_WRITE = MappingProxyType(
    {
        name: pa.ipc.IpcWriteOptions(compression=codec, unify_dictionaries=False, use_threads=False)
        for name, codec in {"zstd": pa.Codec("zstd", compression_level=1), "lz4": pa.Codec("lz4")}.items()
    }
)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


def encode(
    schema_name: str, batch: pa.RecordBatch, interval: Interval, compression: str = "zstd"
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return (value, headers) of one message. ``batch`` must have exactly the columns of the schema.

    ``compression``: ``zstd``, or ``lz4``, which costs a third of the CPU on both sides and half as many bytes more.
    Messages say themselves which it is: readers take both.
    """
    schema = SCHEMAS[schema_name]
    if not batch.schema.equals(schema):
        batch = batch.select(schema.names).cast(schema)
    batch = text_bounds.cut(batch)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_WRITE[compression]) as writer:
        writer.write_batch(batch)
    interval = replace(interval, rows=batch.num_rows)
    headers = [(SCHEMA_HEADER, f"{schema_name}/{max(RELEASED[schema_name])}".encode())]
    headers += [(f.name, str(getattr(interval, f.name)).encode()) for f in fields(interval) if f.name != "version"]
    return sink.getvalue().to_pybytes(), headers


def decode_headers(headers: Iterable[tuple[str, bytes]]) -> tuple[str, Interval]:
    """Return (schema name, interval) of a message.

    Raises:
        UnknownVersionError: the schema or its version was never released.
        CorruptRecordError: a header is missing or not of its type.
    """
    try:
        given = {key: value.decode() for key, value in headers if value is not None}
        name, _, version_text = given[SCHEMA_HEADER].partition("/")
        version = int(version_text)
    except (KeyError, ValueError, AttributeError) as error:
        raise CorruptRecordError(f"no readable '{SCHEMA_HEADER}' header: {error}") from error
    if name not in RELEASED or version not in RELEASED[name]:
        raise UnknownVersionError(f"schema {name[:64]!r} version {version} was never released; upgrade the reader")
    try:
        values = {
            f.name: int(given[f.name]) if f.name in _INTEGERS else given[f.name]
            for f in fields(Interval)
            if f.name != "version"
        }
        interval = Interval(**values, version=version)  # type: ignore[arg-type]
    except (KeyError, ValueError) as error:
        raise CorruptRecordError(f"header missing or wrong: {error}") from error
    if not all(0 <= getattr(interval, name) <= _MAX_INTEGER for name in _COUNTS):
        raise CorruptRecordError("a number in the headers is negative or beyond 63 bits")
    # A clock may say anything; whoever uses the times clamps them (see ``streams.schema.clocks``).
    if not all(-_MAX_INTEGER <= getattr(interval, name) <= _MAX_INTEGER for name in _TIMES):
        raise CorruptRecordError("a time in the headers is beyond 63 bits")
    if any(len(text) > text_bounds.MAX_TEXT for text in values.values() if isinstance(text, str)):
        raise CorruptRecordError(f"a text in the headers is longer than {text_bounds.MAX_TEXT} characters")
    if interval.end_ns < interval.start_ns:
        raise CorruptRecordError("the interval ends before it starts")
    return name, interval


def decode(
    headers: Iterable[tuple[str, bytes]], value: bytes | None, expected: str = ""
) -> tuple[str, Interval, pa.RecordBatch]:
    """Return (schema name, interval, batch) of one message; ``expected`` is the schema of its topic.

    Nothing in the batch is null, at any depth; no count is negative or beyond 63 bits; no text is beyond its bound;
    histograms are well-formed. Times of raw rows are whatever the node's clock said.

    Raises:
        UnknownVersionError: the schema or its version was never released.
        CorruptRecordError: the bytes are not one record batch of that schema, or exceed a bound.
    """
    name, interval = decode_headers(headers)
    if expected and name != expected:
        raise CorruptRecordError(f"a {name} record where {expected} belongs")
    if value is None or len(value) > MAX_RECORD_BYTES:
        raise CorruptRecordError("the record is empty or larger than the bound")
    try:
        batch = _read(name, interval.version, value)
        _check(batch)
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        NotImplementedError,
        StopIteration,  # a stream without a batch
    ) as error:
        raise CorruptRecordError(f"not a valid {name} record: {str(error)[:200]}") from error
    if batch.num_rows != interval.rows:
        raise CorruptRecordError(f"{batch.num_rows} rows where the headers say {interval.rows}")
    return name, interval, batch


def _read(name: str, version: int, value: bytes) -> pa.RecordBatch:
    schema = PROFILE_1 if (name, version) == ("profile", 1) else SCHEMAS[name]
    size, rows = inflated_bytes(value)
    if rows > MAX_ROWS or size > MAX_DECODED_BYTES:
        raise CorruptRecordError("the record decodes to more than the bound")
    with pa.ipc.open_stream(pa.py_buffer(value), options=_READ) as reader:
        batch = reader.read_next_batch()
        # Before anything else looks at it: offsets that point anywhere end the process that follows them.
        batch.validate(full=True)
        try:
            reader.read_next_batch()
        except StopIteration:
            pass
        else:
            raise CorruptRecordError("more than one record batch")
    columns = []
    defaults = OPTIONAL.get(name, MappingProxyType({}))
    for field in schema:
        if field.name not in batch.schema.names:
            if field.name not in defaults:
                raise CorruptRecordError(f"column {field.name!r} is missing")
            columns.append(pa.repeat(pa.scalar(defaults[field.name], field.type), batch.num_rows))
            continue
        column = batch.column(field.name)
        if column.type != field.type:
            raise CorruptRecordError(f"column {field.name!r} is {column.type}, not {field.type}")
        columns.append(_without_stray_offsets(column))
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    return _with_frames(batch) if schema is PROFILE_1 else batch


def _with_frames(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a profile of version 1 as one of today."""
    at = batch.schema.get_field_index("stack")
    column = batch.column(at)
    stacks = column.dictionary
    if _has_null(column):
        raise CorruptRecordError("column 'stack' holds nulls")
    newer = pa.DictionaryArray.from_arrays(
        column.indices, stack_columns.entries(stacks.field("frames"), stacks.field("id").to_numpy())
    )
    return batch.set_column(at, PROFILE.field(at), newer)


def _without_stray_offsets(column: pa.Array) -> pa.Array:
    """Return the column; what is empty anew: Arrow validates no offsets of nothing, and ends the process over them."""
    if len(column) == 0:
        return pa.nulls(0, column.type)
    if pa.types.is_map(column.type) and len(column.keys) == 0:
        nothing = pa.array([], pa.string())
        offsets = pa.array(np.zeros(len(column) + 1, np.int32))
        return pa.MapArray.from_arrays(offsets, nothing, nothing).cast(column.type)
    return column


def _check(batch: pa.RecordBatch) -> None:
    """Check what Arrow's types cannot say."""
    for name in batch.schema.names:
        if _has_null(batch.column(name)):
            raise CorruptRecordError(f"column {name!r} holds nulls")
    names = set(batch.schema.names)
    for name in names.intersection(("window_start_ns", *_NOT_NEGATIVE)):
        numbers = batch.column(name).to_numpy()
        if len(numbers) and numbers.min() < 0:
            raise CorruptRecordError(f"column {name!r} holds a negative number")
    for name in names.intersection(_UNSIGNED):
        numbers = batch.column(name).to_numpy()
        if len(numbers) and numbers.max() > _MAX_INTEGER:
            raise CorruptRecordError(f"column {name!r} holds a number beyond 63 bits")
    if found := text_bounds.overlong(batch):
        raise CorruptRecordError(found)
    if "buckets" in names:
        buckets, counts = batch.column("buckets"), batch.column("counts")
        if not np.array_equal(np.diff(buckets.offsets.to_numpy()), np.diff(counts.offsets.to_numpy())):
            raise CorruptRecordError("a histogram has more buckets than counts, or fewer")
        numbers = buckets.flatten().to_numpy()
        if len(numbers) and numbers.max() >= BUCKETS:
            raise CorruptRecordError(f"a histogram has a bucket beyond {BUCKETS - 1}")
        numbers = counts.flatten().to_numpy()
        if len(numbers) and numbers.max() > _MAX_INTEGER:
            raise CorruptRecordError("column 'counts' holds a number beyond 63 bits")


def _has_null(array: pa.Array) -> bool:
    if array.null_count:
        return True
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _has_null(array.dictionary)
    if pa.types.is_struct(kind):
        return any(_has_null(array.field(at)) for at in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _has_null(array.keys) or _has_null(array.items)
    return bool(pa.types.is_list(kind)) and _has_null(array.flatten())
