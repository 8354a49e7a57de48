"""Reads Kafka's record batches without giving up on one that somebody made to stop the reader.

aiokafka's own reader raises for a header key that is no UTF-8, which the broker takes, and again at every try: the
partition would stand still for ever. And it inflates a compressed batch whatever comes out. Here such a key is read
with its bytes escaped, and a batch that is beyond ``MAX_INFLATED``, or that the broker reads and aiokafka does not,
becomes records without a value, whose header says why; all go the way of records that do not keep the contract.
Cost for what is well-formed: one generator a batch; a batch that Kafka compressed (none of ours is) is inflated twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record import default_records, memory_records

MAX_INFLATED = 64 * 1024 * 1024
"""Four times the largest message, as several may share a batch."""
REFUSED = "perfstream.unreadable"
"""The header of a record that was not inflated."""
_HEADER = default_records.DefaultRecordBase.HEADER_STRUCT.size
_GZIP, _LZ4, _ZSTD = 1, 3, 4


def install() -> None:
    """Make every consumer of this process read so."""
    fetcher.MemoryRecords = Records


class Records(memory_records._MemoryRecordsPy):  # type: ignore[misc]  # noqa: SLF001 - cut into batches as it does
    """The batches of one fetch."""

    def next_batch(self) -> Any:  # noqa: ANN401 - aiokafka is untyped
        """Return the next batch.

        Raises:
            CorruptRecordException: it is none.
        """
        data = self._next_slice
        if data is not None and len(data) > self.MAGIC_OFFSET and data[self.MAGIC_OFFSET] >= 2:
            if len(data) < _HEADER:
                raise CorruptRecordException("a batch is shorter than its header")
            return _Batch(super().next_batch(), data)
        return super().next_batch()


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
            yield from _refused(batch, batch.base_offset, f"its batch inflates to more than {MAX_INFLATED >> 20} MB")
            return
        done = batch.base_offset - 1
        try:
            try:
                for record in batch:
                    yield record
                    done = record.offset
            except UnicodeDecodeError:
                for record in _tolerant(batch, self._data):
                    if record.offset > done:
                        yield record
                        done = record.offset
        except Exception as error:  # noqa: BLE001 - the checksum was right: it will be no other at the next try
            yield from _refused(batch, done + 1, f"its batch cannot be read: {error}"[:300])


def _fits(method: int, data: memoryview) -> bool:
    """Return whether a compressed batch inflates to no more than the bound. What is damaged is aiokafka's to say."""
    import cramjam

    packed = data[_HEADER:]
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


def _refused(batch: Any, first: int, reason: str) -> Iterator[Any]:  # noqa: ANN401
    """Yield what stands for the records of a batch from an offset on."""
    for offset in range(first, batch.next_offset):
        yield default_records._DefaultRecordPy(  # noqa: SLF001
            offset, batch.max_timestamp, batch.timestamp_type, None, None, [(REFUSED, reason.encode())]
        )


def _tolerant(batch: Any, data: memoryview) -> Iterator[Any]:  # noqa: ANN401
    """Read a batch whose header keys may be any bytes; slow. Each place is checked: aiokafka's own helpers do not.

    Raises:
        ValueError: the records do not add up.
    """
    whole = default_records._DefaultRecordBatchPy(data)  # noqa: SLF001
    whole._maybe_uncompress()  # noqa: SLF001
    body = _Body(bytes(whole._buffer), whole._pos)  # noqa: SLF001
    for _ in range(whole._num_records):  # noqa: SLF001
        body.number()  # length
        body.take(1)  # attributes
        delta, offset = body.number(), body.number()
        key, value = body.sized(), body.sized()
        headers = []
        for _ in range(body.number()):
            name = body.sized() or b""
            headers.append((name.decode("utf-8", "backslashreplace"), body.sized()))
        time = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + delta
        yield default_records._DefaultRecordPy(  # noqa: SLF001
            batch.base_offset + offset, time, batch.timestamp_type, key, value, headers
        )


class _Body:
    """Bytes that are read from the front: Kafka's zigzag numbers, and what they give the length of."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data) - self._at:
            raise ValueError("a record goes beyond its batch")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
        raise ValueError("a number in a record has no end")

    def sized(self) -> bytes | None:
        size = self.number()
        return None if size < 0 else self.take(size)
