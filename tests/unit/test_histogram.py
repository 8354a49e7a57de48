"""The histogram's layout: the kernel's formula, the promised error, and quantiles."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.schema import histogram

EDGES = sorted({0, 2**64 - 1} | {max(0, min(2**64 - 1, (m << s) + d)) for s in range(61) for m in (1, 15, 16, 17, 31)
                                 for d in (-1, 0, 1)})  # fmt: skip


def kernel_bucket(v):
    """collectors/bpf/histogram.h, line by line."""
    if v < 16:
        return v
    r, rest = (v > 0xFFFFFFFF) << 5, v
    rest >>= r
    for limit, bits in ((0xFFFF, 4), (0xFF, 3), (0xF, 2), (0x3, 1)):
        s = (rest > limit) << bits
        rest >>= s
        r |= s
    shift = (r | (rest >> 1)) - 4
    return shift * 16 + (v >> shift)


def test_the_kernel_has_the_formula_that_is_compared_here():
    text = (Path(__file__).parents[2] / "collectors/bpf/histogram.h").read_text()
    assert re.search(r"shift = floor_log2\(v\) - 4;\s+return shift \* 16 \+ \(v >> shift\);", text)
    assert [int(bits) for bits in re.findall(r"\) << (\d)", text)] == [5, 4, 3, 2, 1]
    assert re.findall(r"v > (0x[0-9a-f]+)", text) == ["0xffffffff", "0xffff", "0xff", "0xf", "0x3"]


def test_buckets_equal_the_kernels_at_every_edge():
    found = histogram.bucket_of(np.array(EDGES, np.uint64))
    assert found.tolist() == [kernel_bucket(v) for v in EDGES]
    assert found.max() == histogram.BUCKETS - 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_buckets_equal_the_kernels_anywhere(values):
    assert histogram.bucket_of(np.array(values, np.uint64)).tolist() == [kernel_bucket(v) for v in values]


def test_buckets_tile_the_integers_without_gap_or_overlap():
    every = np.arange(histogram.BUCKETS, dtype=np.uint16)
    low, wide = histogram.lower_bound(every), histogram.width(every)
    assert low[0] == 0
    assert np.array_equal(low[:-1] + wide[:-1], low[1:])
    assert int(low[-1]) + int(wide[-1]) == 2**64
    assert np.array_equal(histogram.bucket_of(low), every)
    assert np.array_equal(histogram.bucket_of(low + (wide - np.uint64(1))), every)


def test_the_middle_of_a_bucket_is_within_the_promised_error():
    every = np.arange(1, histogram.BUCKETS, dtype=np.uint16)
    low, wide = histogram.lower_bound(every).astype(float), histogram.width(every).astype(float)
    middle = low + (wide - 1) / 2
    assert np.max((middle - low) / low) <= 0.032
    assert np.max((low + wide - 1 - middle) / (low + wide - 1)) <= 0.032


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 2**53), min_size=1, max_size=50), st.floats(0, 1), st.integers(1, 50))
def test_a_quantile_of_merged_histograms_is_within_3_2_percent(values, q, cut):
    merged = np.zeros(histogram.BUCKETS, np.uint64)
    for part in (values[:cut], values[cut:]):  # as two nodes count, added bucket by bucket
        np.add.at(merged, histogram.bucket_of(np.array(part, np.uint64)), np.uint64(1))
    used = np.flatnonzero(merged).astype(np.uint16)[::-1]  # in any order
    true = sorted(values)[max(1, int(np.ceil(q * len(values)))) - 1]
    assert histogram.quantile(used, merged[used], q) == pytest.approx(true, rel=0.032)


def test_a_quantile_of_nothing_is_no_number():
    assert np.isnan(histogram.quantile(np.array([], np.uint16), np.array([], np.uint64), 0.5))
