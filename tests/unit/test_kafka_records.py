"""Batches that were made to stop the reader: every record is read, or stands for itself without a value."""

import struct

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from runtime import kafka_records
from runtime.kafka_records import REFUSED, Records

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def batch(rows, codec="none", base=0):
    """One batch of (value, headers) as the broker would hand it out."""
    builder = DefaultRecordBatchBuilder(
        2, CODECS[codec], is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 30
    )
    for number, (value, headers) in enumerate(rows):
        assert builder.append(number, 1_000 + number, b"k", value, headers) is not None
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    return bytes(data)


def spoiled(data):
    """The same with header keys that are no UTF-8, and a checksum that agrees."""
    out = bytearray(data.replace(b"BADKEY", b"\xff\xfeDKEY"))
    struct.pack_into(">I", out, 17, calc_crc32c(bytes(out[21:])))
    return bytes(out)


def read(data, kind=Records):
    records, found = kind(data), []
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        found += [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in one]
    return found


@pytest.mark.parametrize("codec", CODECS)
def test_well_formed_batches_are_read_as_aiokafka_reads_them(codec):
    rows = [(b"x" * n, [("a", b"1"), ("é", None)]) for n in range(40)]
    data = batch(rows, codec) + batch([(None, [])], codec, base=40)
    assert read(data) == read(data, MemoryRecords)
    assert [offset for offset, *_ in read(data)] == list(range(41))


def test_a_header_key_of_any_bytes_is_escaped_and_its_neighbours_are_read():
    rows = [(b"1", [("a", b"1")]), (b"2", [("a", b"x"), ("BADKEY", b"y")]), (b"3", [("é", b"z")])]
    data = spoiled(batch(rows, base=7)) + batch([(b"4", [])], base=10)
    with pytest.raises(UnicodeDecodeError):
        read(data, MemoryRecords)
    assert [(offset, value, headers) for offset, _, _, value, headers in read(data)] == [
        (7, b"1", [("a", b"1")]),
        (8, b"2", [("a", b"x"), ("\\xff\\xfeDKEY", b"y")]),
        (9, b"3", [("é", b"z")]),
        (10, b"4", []),
    ]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_a_batch_that_inflates_to_too_much_is_not_inflated(codec, monkeypatch):
    monkeypatch.setattr(kafka_records, "MAX_INFLATED", 1 << 20)
    fine = batch([(bytes(1 << 19), [])], codec)
    bomb = batch([(bytes(1 << 19), [])] * 3, codec, base=1)
    found = read(fine + bomb + batch([(b"after", [])], codec, base=4))
    assert [(offset, value is None) for offset, _, _, value, _ in found] == [
        (0, False), (1, True), (2, True), (3, True), (4, False),
    ]  # fmt: skip
    assert [headers[0][0] for *_, headers in found[1:4]] == [REFUSED] * 3


def test_a_batch_that_the_client_cannot_inflate_stands_for_itself():
    data = bytearray(batch([(b"1", []), (b"2", [])], "lz4", base=5))
    data[61:] = b"no lz4 at all"
    struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    found = read(bytes(data) + batch([(b"after", [])], base=7))
    assert [(offset, value) for offset, _, _, value, _ in found] == [(5, None), (6, None), (7, b"after")]
    assert found[0][4][0][0] == REFUSED
