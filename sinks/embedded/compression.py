"""Bodies in and out: HTTP content encodings, and ClickHouse's own framed blocks (``compress=1``, ``decompress=1``).

A framed block is CityHash128 of the rest (16 bytes), method (1: 0x82 LZ4, 0x90 zstd, 0x02 none), size with this header
(4, little endian), size of the data (4), data. Source: ClickHouse, ``CompressedWriteBuffer``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sinks.embedded.cityhash import city_hash_128
from sinks.embedded.errors import QueryError

_HEADER = struct.Struct("<BII")
_CHECKED = 16
_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02
_MAX_BLOCK = 128 << 20
_CODECS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "gzip", "br": "brotli", "lz4": "lz4", "zstd": "zstd"}
"""Request encodings and Arrow's names for them (its gzip reads zlib's format as well)."""
_ENCODINGS = ("lz4", "zstd", "gzip", "deflate")
"""Response encodings, the cheapest first."""
BLOCK = 1 << 20


def choose(accepted: str) -> str:
    """Return the response encoding for an ``Accept-Encoding`` header; "" for none."""
    names = set()
    for part in accepted.lower().replace(" ", "").split(","):
        name, _, quality = part.partition(";q=")
        if quality.strip("0.") or not quality:
            names.add(name)
    return next((name for name in _ENCODINGS if name in names), "")


class Encoder:
    """Compresses a response part by part."""

    def __init__(self, name: str, level: int) -> None:
        self._finish: Callable[[], bytes]
        self._compress: Callable[[Any], bytes]
        if name in ("gzip", "deflate"):
            stream = zlib.compressobj(min(max(level, 1), 9), zlib.DEFLATED, 31 if name == "gzip" else 15)
            self._compress, self._finish = stream.compress, stream.flush
            self._begin = b""
        elif name == "zstd":
            import zstandard

            zstd = zstandard.ZstdCompressor(level=min(max(level, 1), 19)).compressobj()
            self._compress, self._finish, self._begin = zstd.compress, zstd.flush, b""
        else:
            import lz4.frame

            frame = lz4.frame.LZ4FrameCompressor()
            self._compress, self._finish, self._begin = frame.compress, frame.flush, frame.begin()

    def parts(self, chunks: Iterable[Any]) -> Iterator[bytes]:
        """Yield the compressed parts of the chunks."""
        yield self._begin
        for chunk in chunks:
            yield self._compress(chunk)
        yield self._finish()


def decoded(name: str, chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield the decoded parts of a request body, each at most ``BLOCK`` bytes or so.

    Raises:
        QueryError: an unknown encoding, broken data, or more than ``limit`` bytes.
    """
    name = name.strip().lower()
    total = 0
    parts = chunks if name in ("", "identity") else _decode(name, chunks)
    for part in parts:
        total += len(part)
        if total > limit:
            raise QueryError.of(229, "QUERY_IS_TOO_LARGE", f"The body is larger than {limit} bytes")
        if part:
            yield part


def _decode(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        stream = pa.CompressedInputStream(pa.PythonFile(_Reader(chunks), mode="r"), _CODECS[name])
        # Each step is bounded, however far the data expand; a stream that is cut is an error. Into memory of our own:
        # what Arrow's ``read`` has allocated is lost when it fails.
        room = memoryview(bytearray(BLOCK))
        while count := stream.readinto(room):
            yield bytes(room[:count])
    except KeyError:
        raise QueryError.of(89, "UNKNOWN_COMPRESSION_METHOD", f"Unknown content encoding {name[:32]}") from None
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise QueryError.of(271, "CANNOT_DECOMPRESS", f"Cannot decompress the body: {error}") from None


class _Reader:
    """The chunks as a file, as Arrow wants its input."""

    closed = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int) -> bytes:
        while not self._waiting:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._waiting = memoryview(chunk)
        part, self._waiting = self._waiting[:size], self._waiting[size:]
        return bytes(part)

    def close(self) -> None:
        self.closed = True


def framed(chunks: Iterable[Any], method: str, level: int) -> Iterator[bytes]:
    """Yield ClickHouse's framed blocks of the chunks; ``method`` is LZ4, LZ4HC, ZSTD or NONE."""
    for chunk in chunks:
        view = memoryview(chunk)
        for at in range(0, len(view), BLOCK):
            yield frame(view[at : at + BLOCK], method, level)


def frame(data: Any, method: str = "LZ4", level: int = 1) -> bytes:  # noqa: ANN401 - anything with a buffer
    """Return one framed block."""
    if method == "ZSTD":
        import zstandard

        byte, packed = _ZSTD, zstandard.ZstdCompressor(level=min(max(level, 1), 19)).compress(data)
    elif method == "NONE":
        byte, packed = _NONE, bytes(data)
    else:
        import lz4.block

        byte, packed = _LZ4, lz4.block.compress(data, store_size=False)
    body = _HEADER.pack(byte, len(packed) + _HEADER.size, len(data)) + packed
    return city_hash_128(body) + body


def unframed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of ClickHouse's framed blocks, checking their hashes.

    Raises:
        QueryError: a block is broken, of an unknown method, or larger than 128 MiB.
    """
    waiting = bytearray()
    head = _CHECKED + _HEADER.size
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= head:
            method, packed, size = _HEADER.unpack_from(waiting, _CHECKED)
            if packed > _MAX_BLOCK or size > _MAX_BLOCK or packed < _HEADER.size:
                raise QueryError.of(271, "CANNOT_DECOMPRESS", "A compressed block is larger than 128 MiB")
            end = _CHECKED + packed
            if len(waiting) < end:
                break
            block = bytes(waiting[:end])
            del waiting[:end]
            yield _unframe(block, method, size)
    if waiting:
        raise QueryError.of(271, "CANNOT_DECOMPRESS", "The last compressed block is cut")


def _unframe(block: bytes, method: int, size: int) -> bytes:
    if city_hash_128(block[_CHECKED:]) != block[:_CHECKED]:
        raise QueryError.of(40, "CHECKSUM_DOESNT_MATCH", "Checksum doesn't match: corrupted data")
    packed = memoryview(block)[_CHECKED + _HEADER.size :]
    try:
        if method == _LZ4:
            import lz4.block

            data: bytes = lz4.block.decompress(packed, uncompressed_size=size)
        elif method == _ZSTD:
            import zstandard

            data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
        elif method == _NONE:
            data = bytes(packed)
        else:
            raise QueryError.of(89, "UNKNOWN_COMPRESSION_METHOD", f"Unknown compression method {method:#x}")
    except (RuntimeError, ValueError, MemoryError) as error:
        raise QueryError.of(271, "CANNOT_DECOMPRESS", f"Cannot decompress: {error}") from None
    if len(data) != size:
        raise QueryError.of(271, "CANNOT_DECOMPRESS", "A block does not have the size that it says")
    return data
