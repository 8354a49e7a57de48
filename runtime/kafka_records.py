"""Reads Kafka's record batches without giving up on one that somebody made to stop the reader.

aiokafka's own reader raises for a header key that is no UTF-8, which the broker takes, and again at every try: the
partition would stand still for ever. And it inflates a compressed batch whatever comes out. Here such a key is read
with its bytes escaped, and a batch beyond ``MAX_INFLATED`` becomes records without a value, whose header says why; both
then go the way of every record that does not keep the contract. Cost for what is well-formed: one generator a batch; a
batch that Kafka compressed (none of ours is) is inflated twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from aiokafka.consumer import fetcher
from aiokafka.record import default_records, memory_records

MAX_INFLATED = 64 * 1024 * 1024
"""Four times the largest message, as several may share a batch."""
REFUSED = "perfstream.unreadable"
"""The header of a record that was not inflated."""
_GZIP, _LZ4, _ZSTD = 1, 3, 4


def install() -> None:
    """Make every consumer of this process read so."""
    fetcher.MemoryRecords = Records


class Records(memory_records._MemoryRecordsPy):  # type: ignore[misc]  # noqa: SLF001 - cut into batches as it does
    """The batches of one fetch."""

    def next_batch(self) -> Any:  # noqa: ANN401 - aiokafka is untyped
        """Return the next batch."""
        data = self._next_slice
        batch = super().next_batch()
        return batch if batch is None or batch.magic < 2 else _Batch(batch, data)


class _Batch:
    """A batch as aiokafka's fetcher uses it."""

    def __init__(self, batch: Any, data: memoryview) -> None:  # noqa: ANN401
        self._batch, self._data = batch, data

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._batch, name)

    def __next__(self) -> Any:  # noqa: ANN401
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        batch = self._batch
        if batch.compression_type and not _fits(batch.compression_type, self._data):
            for offset in range(batch.base_offset, batch.next_offset):
                yield _record(batch, offset)
            return
        done = -1
        try:
            for record in batch:
                yield record
                done = record.offset
        except UnicodeDecodeError:
            yield from (record for record in _tolerant(self._data) if record.offset > done)


def _fits(method: int, data: memoryview) -> bool:
    """Return whether a compressed batch inflates to no more than the bound. What is damaged is aiokafka's to say."""
    import cramjam

    packed = data[default_records.DefaultRecordBase.HEADER_STRUCT.size :]
    if method == _GZIP:
        return _inflated(bytes(packed)) <= MAX_INFLATED
    if method not in (_LZ4, _ZSTD):
        return True  # Snappy gives at most 21 times what it takes
    try:
        # Memory that is not written to costs nothing.
        target = np.empty(MAX_INFLATED, np.uint8)
        (cramjam.lz4 if method == _LZ4 else cramjam.zstd).decompress_into(bytes(packed), target)
    except cramjam.DecompressionError:
        return False
    return True


def _inflated(packed: bytes) -> int:
    """Return how long gzip data become, counted until they are beyond the bound."""
    size, engine = 0, zlib.decompressobj(wbits=31)
    while packed and size <= MAX_INFLATED:
        if engine.eof:  # another member follows
            engine = zlib.decompressobj(wbits=31)
        try:
            size += len(engine.decompress(packed, 1 << 20))
        except zlib.error:
            break
        packed = engine.unused_data if engine.eof else engine.unconsumed_tail
    return size


def _record(batch: Any, offset: int) -> Any:  # noqa: ANN401
    reason = f"its batch inflates to more than {MAX_INFLATED >> 20} MB, or not at all".encode()
    return default_records._DefaultRecordPy(  # noqa: SLF001
        offset, batch.max_timestamp, batch.timestamp_type, None, None, [(REFUSED, reason)]
    )


def _tolerant(data: memoryview) -> Iterator[Any]:
    """Read a batch whose header keys may be any bytes; slow."""
    batch = default_records._DefaultRecordBatchPy(data)  # noqa: SLF001
    batch._maybe_uncompress()  # noqa: SLF001
    batch._buffer = _Escaping(batch._buffer)  # noqa: SLF001
    yield from batch


class _Escaping(bytearray):
    """Bytes whose parts decode to text whatever they are; only header keys are decoded."""

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401 - a place or a slice
        found = super().__getitem__(at)
        return found if isinstance(found, int) else _Escaping(found)

    def decode(self, *_: Any) -> str:  # noqa: ANN401
        return super().decode("utf-8", "backslashreplace")
