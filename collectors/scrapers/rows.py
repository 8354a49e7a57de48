"""A decoded profile as rows of the contract: which types, under which names, of which time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.scrapers.pprof import Profile
from collectors.scrapers.settings import ScrapeTarget
from streams.schema.errors import CorruptRecordError
from streams.schema.messages import PROFILE, WORKLOAD
from streams.schema.stack_columns import StackColumns, identify

SLACK_NS = 2_000_000_000
MAX_SPAN_NS = 3_600_000_000_000

TYPES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        # Not ``cpu``: that is what the node's own sampling calls the same time, and the two must never be added up.
        # ``samples`` is left out: it is the time divided by the period, which every row carries.
        "profile": {"cpu": "process_cpu"},
        # ``heap`` and ``allocs`` are the same data: each type is taken from one of them, so that nothing counts twice.
        "heap": {"inuse_objects": "inuse_objects", "inuse_space": "inuse_space"},
        "allocs": {"alloc_objects": "alloc_objects", "alloc_space": "alloc_space"},
        "goroutine": {"goroutine": "goroutine"},
        "threadcreate": {"threadcreate": "threadcreate"},
        "mutex": {"contentions": "mutex_contentions", "delay": "mutex_delay"},
        "block": {"contentions": "block_contentions", "delay": "block_delay"},
    }
)
"""For each profile: the types that are published, under Go's names, and the names that rows carry."""

UNITS = ("nanoseconds", "bytes", "count")

CUMULATIVE = frozenset({"allocs", "mutex", "block"})
"""Profiles that count since the target's start: what is published is the growth between two scrapes."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The wanted part of one profile. ``values`` has shape (stacks, types); ``ids`` are those of ``stacks``."""

    ids: NDArray[np.uint64]
    stacks: StackColumns
    types: tuple[str, ...]
    units: tuple[str, ...]
    periods: tuple[int, ...]
    values: NDArray[np.int64]
    events: NDArray[np.int64]
    """How many events each stack stands for: the profile's first count."""


def select(name: str, profile: Profile) -> Columns:
    """Return the columns that are published of a profile.

    Raises:
        CorruptRecordError: it lacks one of them, or counts in a unit that the contract does not have.
    """
    wanted = TYPES[name]
    missing = [kind for kind in wanted if kind not in profile.types]
    if missing:
        raise CorruptRecordError(f"the profile has no type {missing[0]!r}, only {', '.join(profile.types)[:200]}")
    at = [profile.types.index(kind) for kind in wanted]
    units = tuple(profile.units[i] for i in at)
    strange = [unit for unit in units if unit not in UNITS]
    if strange:
        raise CorruptRecordError(f"the profile counts in {strange[0][:40]!r}, not in {', '.join(UNITS)}")
    related = at if name in ("heap", "allocs") else range(len(profile.types))
    counts = [i for i in related if profile.units[i] == "count"]
    none = np.zeros(len(profile.stacks), np.int64)
    return Columns(
        identify(profile.stacks),
        profile.stacks,
        tuple(wanted.values()),
        units,
        # A period of 1 samples everything.
        tuple(profile.period if unit == profile.period_unit and profile.period > 1 else 0 for unit in units),
        profile.values[:, at],
        profile.values[:, counts[0]] if counts else none,
    )


def build(target: ScrapeTarget, columns: Columns, start_ns: int) -> tuple[pa.RecordBatch, int]:
    """Return (rows of the ``profile`` schema, events they stand for); zeros make no row."""
    used = np.flatnonzero(np.any(columns.values != 0, axis=1))
    values = columns.values[used]
    kind, stack = np.nonzero(values.T)
    rows = len(kind)
    identity = {name: getattr(target, name) for name in WORKLOAD} | {"service": target.labelled_service}
    arrays = [pa.array(np.full(rows, start_ns, np.int64))]
    arrays += [_coded(np.zeros(rows, np.int32), (identity[name],)) for name in WORKLOAD]
    arrays += [_coded(kind, columns.types), _coded(kind, columns.units)]
    dictionary = columns.stacks.take(used).entries(columns.ids[used])
    arrays.append(pa.DictionaryArray.from_arrays(pa.array(stack.astype(np.int32)), dictionary))
    arrays += [pa.array(values.T[kind, stack]), pa.array(np.array(columns.periods, np.int64)[kind])]
    return pa.RecordBatch.from_arrays(arrays, schema=PROFILE), max(0, int(columns.events.sum()))


def span(name: str, profile: Profile, began_ns: int, ended_ns: int) -> tuple[int, int, bool]:
    """Return (start, end, whether the target's clock was set aside) of one profile in Unix nanoseconds.

    The profile's own times are taken when they lie within the request, give or take two seconds; a target with another
    clock, or none, gets ours. A profile without a duration is an instant.

    Args:
        name: the endpoint.
        profile: what it answered.
        began_ns: when it was asked, by our clock.
        ended_ns: when it had answered.
    """
    skewed = not began_ns - SLACK_NS <= profile.time_ns <= ended_ns + SLACK_NS
    sampled = name == "profile"
    start = profile.time_ns if not skewed else began_ns if sampled else ended_ns
    if not sampled:
        return start, start + 1, skewed
    duration = profile.duration_ns
    if not 0 < duration <= ended_ns - began_ns + SLACK_NS:
        duration = max(1, ended_ns - start)
    return start, start + duration, skewed


def _coded(codes: NDArray[np.integer], names: tuple[str, ...]) -> pa.DictionaryArray:
    """Return a dictionary column; ``names`` may repeat (two types of one unit), the dictionary does not."""
    distinct = list(dict.fromkeys(names))
    place = np.array([distinct.index(name) for name in names], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(place[codes]), pa.array(distinct, pa.string()))
