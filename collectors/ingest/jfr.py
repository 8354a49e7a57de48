"""Decodes Java Flight Recorder files, as async-profiler, Pyroscope's Java agent and the JVM itself write them.

Each kind of event becomes a profile of its own, with the type names that rows carry. Bytes allocated come from the
TLAB events, else from ``ObjectAllocationSample``; CPU time from ``CPUTimeSample`` where the JVM has it, else from
``ExecutionSample``: both at once would count twice. Times in ticks become nanoseconds. An event without a stack counts
under ``[unknown]``, so that sums are whole. Not read: ``jdk.NativeMethodSample`` (threads that mostly wait).
Cost: 7 ms for an upload of the agent with 1,000 events, 25 ms more for the metadata of a JVM's own recording; bounded
to 4 s for the worst chunk. Memory: for the largest recording that the limits allow up to a GB for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collectors.ingest import jfr_events, jfr_frames, jfr_labels, jfr_metadata, jfr_pools
from collectors.scrapers.pprof import MAX_BYTES, Profile, inflate
from streams.schema.errors import CorruptRecordError
from streams.schema.stack_columns import StackColumns

MAX_CHUNKS = 64
MAX_GROUPS = 256
"""Sets of labels that are told apart; the samples of further ones are kept without labels."""
_MAX_SUM = float(1 << 62)
_SECOND = 1_000_000_000
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": _SECOND}
_SPAN = re.compile(r"(\d{1,12}) ?(ns|us|ms|s)?\Z", re.ASCII)

Column = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """One profile of a recording. ``metric`` names its family as Pyroscope does; ``labels`` are the context's."""

    metric: str
    labels: Mapping[str, str]
    profile: Profile


@dataclass(frozen=True, slots=True)
class _Family:
    metric: str
    types: tuple[str, str]
    unit: str


_CPU = _Family("process_cpu", ("samples", "process_cpu"), "nanoseconds")
_CPU_TIME = _Family("process_cpu", ("samples", "process_cpu"), "nanoseconds")
_WALL = _Family("wall", ("samples", "wall"), "nanoseconds")
_TLAB = _Family("memory", ("alloc_objects", "alloc_space"), "bytes")
_SAMPLED = _Family("memory", ("alloc_objects", "alloc_space"), "bytes")
_MALLOC = _Family("malloc", ("malloc_objects", "malloc_space"), "bytes")
_LIVE = _Family("live", ("live_objects", "live_space"), "bytes")
_MUTEX = _Family("mutex", ("mutex_contentions", "mutex_delay"), "nanoseconds")
_BLOCK = _Family("block", ("block_contentions", "block_delay"), "nanoseconds")

_AMOUNTS: Mapping[str, tuple[str, str]] = {
    "jdk.ObjectAllocationInNewTLAB": ("tlab", "tlabSize"),
    "jdk.ObjectAllocationOutsideTLAB": ("tlab", "allocationSize"),
    "jdk.ObjectAllocationSample": ("sampled", "weight"),
    "profiler.Malloc": ("malloc", "size"),
    "profiler.LiveObject": ("live", "allocationSize"),
    "jdk.JavaMonitorEnter": ("mutex", "duration"),
    "jdk.ThreadPark": ("block", "duration"),
    "jdk.CPUTimeSample": ("cpu_time", "samplingPeriod"),
}
"""Event: the family it belongs to, and the field that says how much; each event is one object, contention or sample."""
_FAMILIES = {
    "cpu": _CPU, "cpu_time": _CPU_TIME, "wall": _WALL, "tlab": _TLAB, "sampled": _SAMPLED, "malloc": _MALLOC,
    "live": _LIVE, "mutex": _MUTEX, "block": _BLOCK,
}  # fmt: skip
_REPLACES = {"cpu_time": "cpu", "tlab": "sampled"}
_EXECUTION, _WALL_CLOCK, _SETTING = "jdk.ExecutionSample", "profiler.WallClockSample", "jdk.ActiveSetting"
_FIELDS = frozenset({"stackTrace", "contextId", "state", "samples"}) | {name for _, name in _AMOUNTS.values()}


@dataclass(slots=True)
class _Rows:
    """Events of one family: their stacks (numbers of texts), groups of labels, and values, shape (events, 2)."""

    stack: list[Column] = field(default_factory=list)
    group: list[Column] = field(default_factory=list)
    values: list[Column] = field(default_factory=list)
    period: int = 0


def decode(
    data: bytes,
    labels: bytes = b"",
    rate: int = 100,
    keep: Collection[str] | None = None,
    bound: int = MAX_BYTES,
) -> list[Part]:
    """Return the profiles of a recording, gzipped or not; none when it is empty.

    Args:
        data: one or more chunks.
        labels: the agent's ``LabelsSnapshot``, gzipped or not.
        rate: samples a second, where the recording does not say its period.
        keep: the labels that tell profiles apart; None takes all.
        bound: of each of the two, inflated, in bytes.

    Raises:
        CorruptRecordError: this is no recording, it is damaged, cut short, or exceeds a bound.
    """
    raw = inflate(data, bound)
    return _Decoder(raw, jfr_labels.contexts(inflate(labels, bound)), rate, keep).parts() if raw else []


class _Decoder:
    def __init__(
        self, raw: bytes, contexts: dict[int, dict[str, str]], rate: int, keep: Collection[str] | None
    ) -> None:
        self._raw = raw
        self._view = np.frombuffer(raw, np.uint8)
        self._contexts = contexts
        self._keep = keep
        self._default = _SECOND // max(1, rate)
        self._texts: dict[str, int] = {}
        self._groups: dict[tuple[tuple[str, str], ...], int] = {(): 0}
        self._rows: dict[str, _Rows] = {}
        self._start_ns = self._end_ns = 0

    def parts(self) -> list[Part]:
        at = chunks = 0
        while at < len(self._raw):
            chunks += 1
            if chunks > MAX_CHUNKS:
                raise CorruptRecordError(f"the JFR recording has more than {MAX_CHUNKS} chunks")
            chunk = jfr_metadata.header(self._raw, at)
            end = chunk.start_ns + chunk.duration_ns
            self._start_ns = min(self._start_ns, chunk.start_ns) if at else chunk.start_ns
            self._end_ns = max(self._end_ns, end)
            self._chunk(chunk)
            at = chunk.end
        stacks, groups = StackColumns.from_texts(list(self._texts)), list(self._groups)
        dropped = {other for name, other in _REPLACES.items() if name in self._rows}
        found = []
        for name, rows in self._rows.items():
            if name in dropped:
                continue
            group = np.concatenate(rows.group)
            stack, values = np.concatenate(rows.stack), np.concatenate(rows.values)
            for number in np.unique(group).tolist():
                mine = group == number
                profile = self._profile(_FAMILIES[name], stacks, stack[mine], values[mine], rows.period)
                found.append(Part(_FAMILIES[name].metric, dict(groups[number]), profile))
        return found

    def _profile(self, family: _Family, stacks: StackColumns, stack: Column, values: Column, period: int) -> Profile:
        if values.size and (values.min() < 0 or values.astype(np.float64).sum(axis=0).max() > _MAX_SUM):
            raise CorruptRecordError("the JFR recording has values that are negative or too large")
        distinct, which = np.unique(stack, return_inverse=True)
        summed = np.zeros((len(distinct), 2), np.int64)
        np.add.at(summed, which.reshape(-1), values)
        return Profile(
            family.types,
            ("count", family.unit),
            stacks.take(distinct),
            summed,
            len(values),
            self._start_ns,
            max(0, self._end_ns - self._start_ns),
            family.types[1] if period else "",
            family.unit if period else "",
            period,
            "",
            family.types[1],
        )

    def _chunk(self, chunk: jfr_metadata.Header) -> None:
        metadata = jfr_metadata.Metadata(self._raw, chunk)
        names = {
            number: name
            for name in (*_AMOUNTS, _EXECUTION, _WALL_CLOCK, _SETTING)
            for number in metadata.numbers.get(name, [])
        }
        events = jfr_events.index(self._raw, chunk, {jfr_events.CHECKPOINT, *names})
        reader = jfr_pools.Reader(self._raw, self._view, metadata)
        for begin, end in zip(*(side.tolist() for side in events.pop(jfr_events.CHECKPOINT)), strict=True):
            reader.checkpoint(begin, end)
        settings = self._settings(events, names, metadata, reader.pools)
        read = {}
        for number, (at, end) in events.items():
            if len(at) and names[number] != _SETTING:
                steps = metadata.layout(number)
                columns = jfr_events.columns(self._raw, self._view, steps, at, end, _FIELDS)
                none = np.zeros(len(at), np.int64)
                ticks = {step.name for step in steps if step.unit == "TICKS"}
                for name in ticks & columns.keys():
                    columns[name] = _nanoseconds(columns[name], chunk.ticks_per_s)
                read[number] = {name: columns.get(name, none) for name in _FIELDS}
        if not read:
            return
        every = np.concatenate([columns["stackTrace"] for columns in read.values()])
        traces, which = np.unique(every, return_inverse=True)
        found, text = jfr_frames.stacks_of(reader.pools, traces)
        number_of = np.array(
            [self._texts.setdefault(one, len(self._texts)) for one in found.texts().to_pylist()], np.int64
        )
        stack, at_row = number_of[text][which.reshape(-1)], 0
        for number, columns in read.items():
            count = len(columns["stackTrace"])
            self._add(names[number], columns, stack[at_row : at_row + count], settings, reader.pools)
            at_row += count

    def _settings(
        self,
        events: dict[int, tuple[Column, Column]],
        names: dict[int, str],
        metadata: jfr_metadata.Metadata,
        pools: jfr_pools.Pools,
    ) -> dict[str, str]:
        """Return what the recording says about its sampling, under async-profiler's names."""
        found: dict[str, str] = {}
        for number, (at, end) in events.items():
            if names[number] != _SETTING:
                continue
            texts = pools.texts.get("java.lang.String", {})
            for event, name, value in jfr_events.settings(self._raw, metadata.layout(number), at, end, texts):
                if names.get(event) == _EXECUTION and name == "period":
                    found["interval"] = value
                elif name in ("event", "interval", "wall", "alloc"):
                    found[name] = value
        return found

    def _add(
        self, name: str, columns: dict[str, Column], stack: Column, settings: dict[str, str], pools: jfr_pools.Pools
    ) -> None:
        group = self._group(columns["contextId"])
        interval = _span(settings.get("interval", "")) or self._default
        one = np.ones(len(stack), np.int64)
        if name == _WALL_CLOCK:
            self._sampled("wall", stack, group, columns["samples"], _span(settings.get("wall", "")) or interval)
        elif name == _EXECUTION:
            states = pools.texts.get("jdk.types.ThreadState", {})
            asleep = np.array([number for number, text in states.items() if text == b"STATE_SLEEPING"], np.uint64)
            awake = ~np.isin(columns["state"], asleep.view(np.int64))
            self._sampled("cpu", stack[awake], group[awake], one[awake], interval)
            if settings.get("event") == "wall":
                self._sampled("wall", stack, group, one, interval)
        else:
            family, amount = _AMOUNTS[name]
            rows = self._rows.setdefault(family, _Rows())
            if family == "tlab":
                rows.period = _span(settings.get("alloc", ""))
            elif family == "cpu_time" and len(stack):
                rows.period = int(columns[amount].max())
            rows.stack.append(stack)
            rows.group.append(group)
            rows.values.append(np.stack((one, columns[amount]), axis=1))

    def _sampled(self, family: str, stack: Column, group: Column, count: Column, period: int) -> None:
        if not len(stack):
            return
        if count.min() < 0 or count.max() > _MAX_SUM / period:
            raise CorruptRecordError("the JFR recording has values that are negative or too large")
        rows = self._rows.setdefault(family, _Rows())
        rows.period = period
        rows.stack.append(stack)
        rows.group.append(group)
        rows.values.append(np.stack((count, count * period), axis=1))

    def _group(self, context: Column) -> Column:
        """Return the number of each event's set of labels."""
        distinct, which = np.unique(context, return_inverse=True)
        numbers = []
        for one in distinct.tolist():
            given = self._contexts.get(one, {})
            key = tuple(sorted((k, v) for k, v in given.items() if self._keep is None or k in self._keep))
            if key not in self._groups and len(self._groups) >= MAX_GROUPS:
                key = ()
            numbers.append(self._groups.setdefault(key, len(self._groups)))
        return np.array(numbers, np.int64)[which.reshape(-1)]


def _nanoseconds(ticks: Column, rate: int) -> Column:
    return ticks if rate == _SECOND else ticks // rate * _SECOND + ticks % rate * _SECOND // rate


def _span(text: str) -> int:
    """Return a setting in its smallest unit: ``10000000``, ``10 ms``; 0 when it is neither."""
    found = _SPAN.match(text)
    return int(found[1]) * _UNITS[found[2] or "ns"] if found else 0
