"""The latency histogram: log-linear, 16 linear sub-buckets in each octave.

Bucket of an integer ``v`` (nanoseconds), with ``e = floor(log2(v))``::

    v < 16:  v
    else:    (e - 4) * 16 + (v >> (e - 4))

The index is continuous and monotone over 0 .. 2**64-1 (buckets 0 .. 975). A bucket is at most 1/16 of its lower
bound wide, so its midpoint is at most 1/32 (3.125 %) away from any value in it. Same layout as an HDR histogram with
4 significant bits (G. Tene, HdrHistogram), and the same arithmetic as ``collectors/bpf/histogram.h`` in the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUB_BITS = 4
SUB_BUCKETS = 1 << SUB_BITS
BUCKETS = (63 - SUB_BITS) * SUB_BUCKETS + 2 * SUB_BUCKETS  # 976


def bucket_of(values: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the bucket of each value, shape as given. Exact for the whole range of unsigned 64-bit integers."""
    v = np.asarray(values, dtype=np.uint64)
    exponent = np.zeros(v.shape, dtype=np.uint64)
    rest = v.copy()
    for step in (32, 16, 8, 4, 2, 1):
        big = rest >= (np.uint64(1) << np.uint64(step))
        exponent[big] += np.uint64(step)
        rest[big] >>= np.uint64(step)
    shift = np.where(exponent > SUB_BITS, exponent - np.uint64(SUB_BITS), np.uint64(0)).astype(np.uint64)
    return (shift * np.uint64(SUB_BUCKETS) + (v >> shift)).astype(np.uint16)


def lower_bound(buckets: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Return the smallest value of each bucket, in nanoseconds."""
    b = np.asarray(buckets, dtype=np.uint64)
    shift = np.where(b >= 2 * SUB_BUCKETS, b // np.uint64(SUB_BUCKETS) - np.uint64(1), np.uint64(0)).astype(np.uint64)
    return (b - shift * np.uint64(SUB_BUCKETS)) << shift


def width(buckets: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Return how many integers fall into each bucket."""
    b = np.asarray(buckets, dtype=np.uint64)
    shift = np.where(b >= 2 * SUB_BUCKETS, b // np.uint64(SUB_BUCKETS) - np.uint64(1), np.uint64(0)).astype(np.uint64)
    return np.uint64(1) << shift


def quantile(buckets: NDArray[np.uint16], counts: NDArray[np.uint64], q: float) -> float:
    """Return the ``q`` quantile (0..1) in nanoseconds from a merged histogram; NaN when it is empty.

    The rank is that of the nearest-rank definition (ceil(q * n)); the answer is the midpoint of its bucket.
    """
    total = int(np.sum(counts, dtype=np.uint64))
    if total == 0:
        return float("nan")
    order = np.argsort(buckets, kind="stable")
    cumulative = np.cumsum(np.asarray(counts, dtype=np.uint64)[order])
    rank = max(1, int(np.ceil(q * total)))
    at = np.asarray(buckets)[order][int(np.searchsorted(cumulative, rank))]
    low = int(lower_bound(np.array([at], dtype=np.uint16))[0])
    wide = int(width(np.array([at], dtype=np.uint16))[0])
    return low + (wide - 1) / 2
