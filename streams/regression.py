"""Which functions' shares differ between two sets of profiles: pure statistics over sums, no clock and no store.

Samples are not independent: a node, a minute, a phase of the load give many alike, and a plain multinomial test then
finds differences in every pair of halves of one unchanged program. So each side is cut into clusters (node x time), and
a share's variance is that of a ratio over clusters (Cochran, Sampling Techniques, 1977, 6.3) where it exceeds the
multinomial one. Their quotient, the overdispersion, is at least 1 and at least the median of all functions: a single
one's estimate is noisy when there are few clusters. Differences are tested with Student's t; where few samples are
expected also with the binomial distribution, given their sum, and the larger p counts. Many functions are tested at
once: Benjamini and Hochberg (1995) bounds the share of false findings.

What this cannot know: when the sides ran on different nodes, a difference between nodes looks like one between versions
unless the clusters are whole nodes.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEW = 50.0
"""Below so many expected samples on a side the binomial distribution is asked as well."""
LEAST = 5.0
"""Independent samples on both sides together below which nothing could be told: not tested."""
MIN_SEEN = 10.0
"""Samples that a function needs for its overdispersion to count in the median."""
_STEPS = 300


@dataclass(frozen=True, slots=True)
class Side:
    """One side's sums; arrays of shape (functions,), in the profile's unit.

    ``value`` is a function's sum x over the clusters c, ``squares`` the sum of x_c^2, ``cross`` of x_c T_c where T_c is
    a cluster's whole; ``total`` and ``total_squares`` are the sums of T_c and T_c^2. ``samples`` is how many were taken
    in all (0 when that is not known).
    """

    value: Floats
    squares: Floats
    cross: Floats
    total: float
    total_squares: float
    clusters: int
    samples: float


@dataclass(frozen=True, slots=True)
class Differences:
    """Arrays of shape (functions,): shares (0..1), their difference with its interval, and p.

    ``tested`` is false, and p is 1, where the samples are too few to tell anything.
    """

    baseline: Floats
    comparison: Floats
    difference: Floats
    low: Floats
    high: Floats
    p: Floats
    tested: NDArray[np.bool_]


def compare(baseline: Side, comparison: Side, confidence: float = 0.95) -> Differences:
    """Return how the shares of the second side differ from those of the first; cost: some ms for 10,000 functions."""
    sides = (baseline, comparison)
    n = [side.samples or 1.0 for side in sides]
    counted = all(side.samples > 0 for side in sides)
    shares = [_share(side) for side in sides]
    spread = _overdispersion(sides, shares, n, counted)
    both = (shares[0] * n[0] + shares[1] * n[1]) / (n[0] + n[1])
    # Under the null hypothesis both have one share: a function that was never seen on a side has a variance there too.
    null = sum(f * both * (1 - both) / m for f, m in zip(spread, n, strict=True))
    # The interval has each side's own; one more sample seen and one not (Agresti and Caffo, 2000) give it a width.
    more = 1.0 if counted else 0.0
    own = [(p * m + more) / (m + 2 * more) for p, m in zip(shares, n, strict=True)]
    wide = np.sqrt(sum(f * p * (1 - p) / m for f, p, m in zip(spread, own, n, strict=True)))
    freedom = sum(max(0, side.clusters - 1) for side in sides)
    difference = shares[1] - shares[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference == 0, 0.0, np.abs(difference) / np.sqrt(null))
    p = student(t, max(1, freedom))
    tested = np.full(len(difference), freedom > 0)  # without a second cluster anywhere no spread is known
    if counted:
        tested &= both * (n[0] / spread[0] + n[1] / spread[1]) >= LEAST
        rare = tested & (both * np.minimum(n[0] / spread[0], n[1] / spread[1]) < FEW)
        k, rest = (shares[i][rare] * n[i] / spread[i][rare] for i in (1, 0))
        of = [n[i] / spread[i][rare] for i in (0, 1)]
        p[rare] = np.maximum(p[rare], _binomial(k, k + rest, of[1] / (of[0] + of[1])))
    p = np.where(tested & np.isfinite(p), p, 1.0)
    half = _student_quantile(confidence, max(1, freedom)) * wide
    return Differences(shares[0], shares[1], difference, difference - half, difference + half, p, tested)


def adjusted(p: Floats) -> Floats:
    """Return q values: the false discovery rate at which each p just becomes a finding (Benjamini, Hochberg 1995)."""
    if not len(p):
        return p.astype(np.float64)
    order = np.argsort(p, kind="stable")[::-1]
    ranks = np.arange(len(p), 0, -1)
    result = np.empty(len(p))
    result[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * len(p) / ranks))
    return result


def _share(side: Side) -> Floats:
    return np.clip(side.value / side.total, 0.0, 1.0) if side.total > 0 else np.zeros(len(side.value))


def _overdispersion(sides: tuple[Side, Side], shares: list[Floats], n: list[float], counted: bool) -> list[Floats]:
    """Return for each side how many times the multinomial variance a share's is, shape (functions,)."""
    least = 1.0 if counted else 0.0
    found: list[Floats | None] = []
    for side, p, m in zip(sides, shares, n, strict=True):
        if side.clusters < 2 or side.total <= 0:
            found.append(None)
            continue
        squares = np.maximum(0.0, side.squares - 2 * p * side.cross + p * p * side.total_squares)
        variance = side.clusters / (side.clusters - 1) * squares / side.total**2
        plain = p * (1 - p) / m
        # Where a side has all or nothing of a function there is nothing to divide by; the median stands in.
        ratio = np.divide(variance, plain, out=np.zeros(len(p)), where=plain > 1e-15)
        well = ratio[(p * m >= (MIN_SEEN if counted else 0.0)) & (plain > 1e-15)]
        found.append(np.maximum(ratio, max(least, float(np.median(well)) if len(well) else least)))
    known = next((one for one in found if one is not None), np.ones(len(shares[0])))
    # A side of one cluster shows no spread: the other's is the best guess.
    return [one if one is not None else known for one in found]


def student(t: Floats, freedom: float) -> Floats:
    """Return the two-sided p of Student's t (DLMF 8.17; Abramowitz and Stegun 26.7.1)."""
    finite = np.where(np.isfinite(t), t, 1e150)
    x = freedom / (freedom + finite * finite)
    p = incomplete_beta(np.full(len(t), freedom / 2), np.full(len(t), 0.5), x)
    return np.where(np.isnan(t), 1.0, p)


@functools.cache
def _student_quantile(confidence: float, freedom: float) -> float:
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        if float(student(np.array([middle]), freedom)[0]) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _binomial(k: Floats, n: Floats, p: Floats) -> Floats:
    """Return the two-sided p (twice the smaller tail) of k of n, also for what overdispersion made no whole numbers."""
    upper = np.where(k <= 0, 1.0, incomplete_beta(np.maximum(k, 1e-9), n - k + 1, p))
    lower = np.where(k >= n, 1.0, 1 - incomplete_beta(k + 1, np.maximum(n - k, 1e-9), p))
    both: Floats = np.minimum(1.0, 2 * np.minimum(upper, lower))
    return both


def incomplete_beta(a: Floats, b: Floats, x: Floats) -> Floats:
    """Return the regularised incomplete beta function I_x(a, b), relative error about 1e-12 for a, b below 10,000.

    By its continued fraction (DLMF 8.17.22), evaluated forwards with Lentz's method; by symmetry (8.17.4) where that is
    slow to converge.
    """
    if not len(x):
        return x.astype(np.float64)
    swap = x > (a + 1) / (a + b + 2)
    p, q, y = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    lgamma = np.frompyfunc(math.lgamma, 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        front = p * np.log(y) + q * np.log1p(-y) - np.log(p)
        front = np.exp(front + (lgamma(p + q) - lgamma(p) - lgamma(q)).astype(np.float64))
    c, d = np.ones(len(y)), 1 / _off_zero(1 - (p + q) * y / (p + 1))
    fraction = d.copy()
    for m in range(1, _STEPS):
        even = m * (q - m) * y / ((p + 2 * m - 1) * (p + 2 * m))
        odd = -(p + m) * (p + q + m) * y / ((p + 2 * m) * (p + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _off_zero(1 + term * d)
            c = _off_zero(1 + term / c)
            fraction *= c * d
        if np.all(np.abs(c * d - 1) < 1e-13):
            break
    result = np.where(y <= 0, 0.0, np.where(y >= 1, 1.0, front * fraction))
    return np.where(swap, 1 - result, result)


def _off_zero(x: Floats) -> Floats:
    return np.where(np.abs(x) < 1e-300, 1e-300, x)
