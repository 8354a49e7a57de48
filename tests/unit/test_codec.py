from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from streams.schema import clocks, codec, histogram, stacks
from streams.schema.errors import CorruptRecordError, UnknownVersionError
from streams.schema.messages import PROFILE, STACK, TEXT, Interval

INTERVAL = Interval("cpu", "c1", "n1", "p1", 7, 1_000, 2_000, events=3, lost=2)


def profile_batch(values=(10, 20, 30)):
    frames = ["main\tm.c\t1\nwork\tm.c\t2", "main\tm.c\t1"]
    stack = pa.StructArray.from_arrays(
        [pa.array([stacks.stack_id(f) for f in frames], pa.uint64()), pa.array(frames)], fields=list(STACK)
    )
    n = len(values)
    text = pa.array(["x"] * n).dictionary_encode().cast(TEXT)
    data = dict.fromkeys(PROFILE.names, text)
    data |= {
        "time_ns": pa.array([1_000] * n, pa.int64()),
        "value": pa.array(values, pa.int64()),
        "period": pa.array([10] * n, pa.int64()),
        "stack": pa.DictionaryArray.from_arrays(pa.array([i % 2 for i in range(n)], pa.int32()), stack),
    }
    return pa.RecordBatch.from_arrays([data[name] for name in PROFILE.names], schema=PROFILE)


def test_round_trip_keeps_rows_headers_and_stack_ids():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    name, interval, batch = codec.decode(headers, value)
    assert name == "profile"
    assert interval == replace(INTERVAL, rows=3)
    assert batch.equals(profile_batch())
    assert batch.column("stack").dictionary.field("id")[0].as_py() == stacks.stack_id("main\tm.c\t1\nwork\tm.c\t2")


def test_unknown_version_and_schema_are_named():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    for wrong in (b"profile/99", b"nothing/1"):
        with pytest.raises(UnknownVersionError, match="never released"):
            codec.decode([("schema", wrong), *headers[1:]], value)


def test_any_truncation_and_any_flipped_byte_is_a_schema_error_or_a_valid_batch():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    for cut in range(0, len(value) - 8, 7):
        with pytest.raises(CorruptRecordError):
            codec.decode(headers, value[:cut])
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(value), 300):
        broken = bytearray(value)
        broken[at] ^= 1 << int(rng.integers(8))
        try:
            codec.decode(headers, bytes(broken))
        except CorruptRecordError:
            continue


def test_row_count_must_agree_with_the_headers():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    wrong = [(k, b"4" if k == "rows" else v) for k, v in headers]
    with pytest.raises(CorruptRecordError, match="3 rows where"):
        codec.decode(wrong, value)


def test_histogram_buckets_are_continuous_monotone_and_within_the_promised_error():
    small = np.arange(0, 100_000, dtype=np.uint64)
    buckets = histogram.bucket_of(small)
    steps = np.diff(buckets.astype(np.int64))
    assert set(np.unique(steps)) <= {0, 1}
    rng = np.random.default_rng(2)
    big = (rng.random(10_000) * 2.0**63).astype(np.uint64) >> rng.integers(0, 60, 10_000).astype(np.uint64)
    b = histogram.bucket_of(big)
    low, wide = histogram.lower_bound(b), histogram.width(b)
    assert np.all((low <= big) & (big - low < wide))
    middle = low.astype(float) + (wide.astype(float) - 1) / 2
    assert np.max(np.abs(middle - big) / np.maximum(big, 1)) <= 0.032
    assert histogram.bucket_of(np.array([2**64 - 1], dtype=np.uint64))[0] == histogram.BUCKETS - 1


def test_quantile_of_a_known_distribution():
    values = np.arange(1, 1001, dtype=np.uint64) * 1000
    buckets, counts = np.unique(histogram.bucket_of(values), return_counts=True)
    assert histogram.quantile(buckets, counts.astype(np.uint64), 0.5) == pytest.approx(500_000, rel=0.032)
    assert histogram.quantile(buckets, counts.astype(np.uint64), 0.99) == pytest.approx(990_000, rel=0.032)
    assert np.isnan(histogram.quantile(buckets[:0], counts[:0].astype(np.uint64), 0.5))


def test_a_clock_one_day_ahead_is_clamped_and_counted():
    append = 1_000_000_000_000
    times = np.array([append, append + 86_400_000_000_000, append + clocks.MAX_AHEAD_NS])
    clamped, count = clocks.clamp(times, append)
    assert count == 1
    assert clamped.tolist() == [append, append, append + clocks.MAX_AHEAD_NS]


def test_separators_inside_a_name_cannot_forge_a_frame():
    text = stacks.frame_text("evil\nname\tx", "a\tb", -3)
    assert stacks.split(text) == [stacks.Frame("evil name x", "a b", 0)]
    assert len(stacks.split(stacks.join([stacks.frame_text("f")] * 5000))) == stacks.MAX_FRAMES
