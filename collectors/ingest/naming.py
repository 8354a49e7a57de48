"""Which of a profile's sample types are published, under which names and in which unit.

The names are those that the scraper gives the same data: ``process_cpu``, ``alloc_space``, ``inuse_space``,
``goroutine``, ``mutex_delay``, ``block_contentions``, ... A count of samples beside a time is left out, every row has
value and period; a count of CPU samples without a time becomes time, by the period.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import SampleType, Series
from collectors.scrapers.growth import Growth
from collectors.scrapers.pprof import Profile
from collectors.scrapers.rows import Columns
from streams.schema.stack_columns import StackColumns, identify

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "cpu": "process_cpu",
        "itimer": "process_cpu",
        "goroutines": "goroutine",
        "mutex_count": "mutex_contentions",
        "mutex_duration": "mutex_delay",
        "block_count": "block_contentions",
        "block_duration": "block_delay",
        "lock_count": "block_contentions",
        "lock_duration": "block_delay",
        "threads": "threadcreate",
    }
)
"""What clients call a type, and what rows carry."""
TIMED = frozenset({"process_cpu", "wall"})
CUMULATIVE = frozenset(
    {"alloc_objects", "alloc_space", "mutex_contentions", "mutex_delay", "block_contentions", "block_delay"}
)
"""Types that Go counts since the program's start."""
SCALES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "nanoseconds": ("nanoseconds", 1),
        "microseconds": ("nanoseconds", 1_000),
        "milliseconds": ("nanoseconds", 1_000_000),
        "seconds": ("nanoseconds", 1_000_000_000),
        "bytes": ("bytes", 1),
        "kilobytes": ("bytes", 1 << 10),
        "megabytes": ("bytes", 1 << 20),
    }
)
Identify = Callable[[StackColumns], NDArray[np.uint64]]
_MAX_VALUE = (1 << 63) - 1
_MAX_TYPES = 64
_MAX_TYPE = 128
_CLEAN = dict.fromkeys(range(32), " ") | {127: " "}


def columns(series: Series, identified: Identify = identify) -> Columns:
    """Return what is published of a series; ``Columns.types`` is empty when that is nothing.

    Args:
        series: what a decoder returned.
        identified: gives the stacks their ids.

    Raises:
        RefusedError: 422, a value does not fit 63 bits in its unit, or there are too many types.
    """
    profile = series.profile
    if len(profile.types) > _MAX_TYPES:
        raise RefusedError(422, "too_many_types", f"the profile has more than {_MAX_TYPES} sample types")
    chosen = _chosen(series)
    types, units, periods, values, scales = [], [], [], [], []
    for at, name in chosen:
        unit, scale = SCALES.get(profile.units[at], ("count", 1))
        # A period of 1 samples everything.
        period = profile.period if profile.period > 1 and profile.units[at] == profile.period_unit else 0
        if unit == "count" and name in TIMED:
            unit, scale = SCALES.get(profile.period_unit, ("nanoseconds", 1))
            scale, period = scale * max(1, profile.period), profile.period
            period = scale
        elif period:
            period *= scale
        types.append(name)
        units.append(unit)
        periods.append(period)
        scales.append(scale)
        values.append(_scaled(profile.values[:, at], scale))
    rows = len(profile.stacks)
    counts = [at for at, unit in enumerate(profile.units) if unit == "count"]
    found = Columns(
        identified(profile.stacks),
        profile.stacks,
        tuple(types),
        tuple(units),
        tuple(periods),
        np.stack(values, axis=1) if values else np.zeros((rows, 0), np.int64),
        profile.values[:, counts[0]] if counts else np.zeros(rows, np.int64),
    )
    return found if series.before is None else _grown(found, series, chosen, identified)


def cumulative(found: Columns) -> NDArray[np.bool_]:
    """Return which types count since their program's start, unless their sender has subtracted; shape (types,)."""
    return np.array([name in CUMULATIVE for name in found.types], np.bool_)


def _grown(found: Columns, series: Series, chosen: list[tuple[int, str]], identified: Identify) -> Columns:
    """Subtract the earlier profile from the types that are cumulative."""
    assert series.before is not None
    before = columns(Series(series.labels, series.before, series.metric, series.config), identified)
    if before.types != found.types:
        raise RefusedError(422, "not_profile", "prev_profile has other sample types than profile")
    config = series.config or {}
    names = [series.profile.types[at] for at, _name in chosen]
    which = np.array([config.get(name, SampleType()).cumulative for name in names], np.bool_)
    growth = Growth()
    growth.advance(before, series.before.process, 0)
    grown = growth.advance(found, series.profile.process, 1)
    assert grown is not None
    values = np.where(which[None, :], grown.columns.values, found.values)
    return Columns(found.ids, found.stacks, found.types, found.units, found.periods, values, found.events)


def _chosen(series: Series) -> list[tuple[int, str]]:
    """Return (column, name) of each type that is published; no name twice."""
    profile, config = series.profile, series.config
    timed = [at for at, unit in enumerate(profile.units) if SCALES.get(unit, ("", 0))[0] == "nanoseconds"]
    chosen: dict[str, int] = {}
    for at, given in enumerate(profile.types):
        if given == "samples" and profile.units[at] == "count" and timed:
            continue
        if config is not None and given not in config and at not in timed:
            continue
        name = _name(given, series.metric, config, profile)
        if name and chosen.setdefault(name, at) != at and at in timed:
            chosen[name] = at
    return [(at, name) for name, at in chosen.items()]


def _name(given: str, metric: str, config: Mapping[str, SampleType] | None, profile: Profile) -> str:
    display = (config or {}).get(given, SampleType()).display or given
    if display in ("contentions", "delay"):
        return f"{metric if metric in ('mutex', 'block') else 'block'}_{display}"
    if display in ("objects", "space") and metric in ("", "memory", "heap"):
        return f"inuse_{display}"
    if display == "samples" and profile.period_unit in SCALES and profile.period > 0:
        return metric if metric in TIMED else "process_cpu"
    return ALIASES.get(display, display)[:_MAX_TYPE].translate(_CLEAN)


def _scaled(values: NDArray[np.int64], scale: int) -> NDArray[np.int64]:
    if scale != 1 and len(values) and int(values.max()) > _MAX_VALUE // scale:
        raise RefusedError(422, "not_profile", "a value of the profile does not fit 63 bits in its unit")
    return values * scale if scale != 1 else values
