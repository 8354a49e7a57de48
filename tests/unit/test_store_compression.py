"""Bodies in and out: content encodings and ClickHouse's framed blocks, in any cut, broken, bombs."""

import gzip
import zlib
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.embedded.compression import BLOCK, Encoder, choose, decoded, frame, framed, unframed
from sinks.embedded.errors import QueryError

COMPRESS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
    "lz4": lz4.frame.compress,
    "br": lambda data: pa.Codec("brotli").compress(data, asbytes=True),
}
DECOMPRESS = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    "lz4": lz4.frame.decompress,
}
BODIES = st.binary(max_size=200) | st.binary(min_size=1, max_size=9).map(lambda part: part * 30_011)
CUTS = st.integers(1, 100_000)


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("name", COMPRESS)
@settings(max_examples=40, deadline=None)
@given(data=BODIES, size=CUTS)
def test_request_body(name, data, size):
    parts = list(decoded(name, cut(COMPRESS[name](data), size), 1 << 30))
    assert b"".join(parts) == data
    assert all(len(part) <= BLOCK for part in parts)


@pytest.mark.parametrize("name", DECOMPRESS)
@settings(max_examples=40, deadline=None)
@given(data=BODIES, size=CUTS, level=st.integers(-2, 30))
def test_response_body(name, data, size, level):
    assert DECOMPRESS[name](b"".join(Encoder(name, level).parts(cut(data, size)))) == data


@pytest.mark.parametrize("name", COMPRESS)
def test_two_members_are_one_body(name):
    assert b"".join(decoded(name, [COMPRESS[name](b"a,b\n") + COMPRESS[name](b"c,d\n")], 100)) == b"a,b\nc,d\n"


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_cut_body(name, kept):
    data = COMPRESS[name](bytes(range(256)) * 97)
    with pytest.raises(QueryError) as error:
        list(decoded(name, [data[: int(len(data) * kept)]], 1 << 30))
    assert error.value.code == 271


@pytest.mark.parametrize("name", COMPRESS)
def test_bomb_ends_at_the_limit(name):
    parts = []
    with pytest.raises(QueryError) as error:
        parts.extend(decoded(name, [COMPRESS[name](bytes(16 << 20))], 3 << 20))
    assert error.value.code == 229
    assert error.value.status == 413
    assert sum(map(len, parts)) <= 3 << 20


def test_unknown_encoding():
    with pytest.raises(QueryError) as error:
        list(decoded("snappy", [b"x"], 100))
    assert error.value.code == 89


def test_the_source_keeps_its_own_errors():
    def source():
        yield gzip.compress(bytes(range(256)) * 97)[:100]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        list(decoded("gzip", source(), 1 << 30))


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", ""), ("identity", ""), ("gzip", "gzip"), ("gzip, deflate, br, zstd", "zstd"), ("br", ""),
        ("zstd;q=0, gzip;q=0.5", "gzip"), ("LZ4;q=0.0,deflate", "deflate"), ("lz4 ; q=0.1", "lz4"),
    ],
)  # fmt: skip
def test_choose(accepted, chosen):
    assert choose(accepted) == chosen


@settings(max_examples=60, deadline=None)
@given(data=BODIES, size=CUTS, method=st.sampled_from(["LZ4", "LZ4HC", "ZSTD", "NONE"]), level=st.integers(-2, 99))
def test_framed(data, size, method, level):
    blocks = b"".join(framed([data], method, level))
    assert b"".join(unframed(cut(blocks, size))) == data


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=300), at=st.integers(0, 10_000), bit=st.integers(0, 7), keep=st.booleans())
def test_framed_and_broken(data, at, bit, keep):
    block = bytearray(frame(data))
    at %= len(block)
    if keep:
        block[at] ^= 1 << bit
    else:
        del block[at:]
    if not block:
        return
    with pytest.raises(QueryError) as error:
        list(unframed([bytes(block)]))
    assert error.value.code in {40, 89, 271}


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bodies_that_are_cut_leave_no_memory_behind(encoding):
    cut = COMPRESS[encoding](b"SELECT 1" * 100)[:-5]

    def pages():
        return int(Path("/proc/self/statm").read_text().split()[0])

    def fail(times):
        for _ in range(times):
            with pytest.raises(QueryError):
                list(decoded(encoding, [cut], BLOCK))

    fail(20)
    before = pages()
    fail(200)
    assert (pages() - before) * 4096 < 50 * BLOCK
