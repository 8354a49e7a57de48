"""The push endpoint's inflating says what zlib's says, whatever the bytes are."""

import gzip
import random

import pytest

from collectors.ingest.inflate import inflate
from collectors.scrapers import pprof
from streams.schema.errors import CorruptRecordError

BOUND = 100_003
TEXT = random.Random(7).randbytes(30_011) + b"frame" * 997
WHOLE = gzip.compress(TEXT, 6, mtime=0)
CASES = {
    "plain": TEXT,
    "whole": WHOLE,
    "empty": gzip.compress(b"", mtime=0),
    "no compression": gzip.compress(TEXT, 0, mtime=0),
    "as large as may be": gzip.compress(bytes(BOUND), mtime=0),
    "one byte more": gzip.compress(bytes(BOUND + 1), mtime=0),
    "a bomb": gzip.compress(bytes(50 << 20), mtime=0),
    "more behind it": WHOLE + b"more",
    "two members": WHOLE + gzip.compress(b"second", mtime=0),
    "wrong sum": WHOLE[:-8] + bytes(4) + WHOLE[-4:],
    "wrong length": WHOLE[:-4] + bytes(4),
    "too great a length": WHOLE[:-4] + b"\xff" * 4,
    "no end": WHOLE[:-3],
    "cut in half": WHOLE[: len(WHOLE) // 2],
    "a head alone": WHOLE[:5],
    "two bytes": WHOLE[:2],
    "unknown flag": WHOLE[:3] + b"\x80" + WHOLE[4:],
    "checksum of the header, wrong": WHOLE[:3] + b"\x02" + WHOLE[4:10] + b"ab" + WHOLE[10:],
    "name and comment": WHOLE[:3] + b"\x18" + WHOLE[4:10] + b"a\0b\0" + WHOLE[10:],
    "name without an end": WHOLE[:3] + b"\x08" + WHOLE[4:10] + b"aaaaaaaaaaaa",
    "damaged": WHOLE[:1000] + b"\xff" + WHOLE[1001:],
    "nothing": b"",
}


def outcome(function, data):
    try:
        return function(data, BOUND)
    except CorruptRecordError as error:
        return str(error)


@pytest.mark.parametrize("data", CASES.values(), ids=CASES.keys())
def test_it_is_what_zlib_makes_of_it(data):
    assert outcome(inflate, data) == outcome(pprof.inflate, data)


def test_what_is_whole_is_not_read_twice(monkeypatch):
    monkeypatch.setattr(pprof, "inflate", None)
    assert inflate(WHOLE, BOUND) == TEXT
