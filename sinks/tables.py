"""The tables that the migrations make, for whoever writes queries. A test compares them with a migrated store.

Types are written as ClickHouse writes them in ``system.columns``; ``sorting_key`` as in ``system.tables``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

DATABASE = "perfstream"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns (name, type) in order, and its sorting key."""

    name: str
    columns: tuple[tuple[str, str], ...]
    sorting_key: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the column names."""
        return tuple(name for name, _ in self.columns)


SAMPLES = Table(
    "samples",
    (
        ("time", "DateTime64(3, 'UTC')"),
        ("cluster", "LowCardinality(String)"),
        ("node", "LowCardinality(String)"),
        ("namespace", "LowCardinality(String)"),
        ("pod", "LowCardinality(String)"),
        ("container", "LowCardinality(String)"),
        ("service", "LowCardinality(String)"),
        ("version", "LowCardinality(String)"),
        ("type", "LowCardinality(String)"),
        ("unit", "LowCardinality(String)"),
        ("stack_id", "UInt64"),
        ("value", "Int64"),
        ("period", "Int64"),
    ),
    "type, service, version, toStartOfHour(time), stack_id, node, pod, container, time",
)

STACKS = Table(
    "stacks",
    (
        ("stack_id", "UInt64"),
        ("functions", "Array(LowCardinality(String))"),
        ("files", "Array(LowCardinality(String))"),
        ("lines", "Array(UInt32)"),
        ("last_seen", "DateTime('UTC')"),
    ),
    "stack_id",
)

SAMPLES_1H = Table(
    "samples_1h",
    (
        ("time", "DateTime('UTC')"),
        ("cluster", "String"),
        ("namespace", "String"),
        ("service", "String"),
        ("version", "String"),
        ("type", "String"),
        ("unit", "String"),
        ("stack_id", "UInt64"),
        ("value", "Int64"),
    ),
    "type, service, version, time, stack_id, cluster, namespace, unit",
)

HOTSPOTS = Table(
    "hotspots",
    (
        ("window_start", "DateTime('UTC')"),
        ("window_s", "UInt32"),
        ("shard", "Int32"),
        ("first_offset", "Int64"),
        ("last_offset", "Int64"),
        ("late", "UInt8"),
        ("cluster", "LowCardinality(String)"),
        ("namespace", "LowCardinality(String)"),
        ("service", "LowCardinality(String)"),
        ("version", "LowCardinality(String)"),
        ("type", "LowCardinality(String)"),
        ("unit", "LowCardinality(String)"),
        ("function", "LowCardinality(String)"),
        ("self", "Int64"),
        ("total", "Int64"),
    ),
    "type, service, version, window_start, window_s, cluster, namespace, unit, function, shard, first_offset",
)

LATENCY_WINDOWS = Table(
    "latency_windows",
    (
        ("window_start", "DateTime('UTC')"),
        ("window_s", "UInt32"),
        ("shard", "Int32"),
        ("first_offset", "Int64"),
        ("last_offset", "Int64"),
        ("late", "UInt8"),
        ("cluster", "LowCardinality(String)"),
        ("node", "LowCardinality(String)"),
        ("namespace", "LowCardinality(String)"),
        ("pod", "LowCardinality(String)"),
        ("container", "LowCardinality(String)"),
        ("service", "LowCardinality(String)"),
        ("version", "LowCardinality(String)"),
        ("probe", "LowCardinality(String)"),
        ("operation", "LowCardinality(String)"),
        ("buckets", "Array(UInt16)"),
        ("counts", "Array(UInt64)"),
        ("count", "UInt64"),
        ("sum_ns", "UInt64"),
        ("max_ns", "UInt64"),
        ("period", "UInt32"),
    ),
    "probe, service, version, window_start, window_s, operation, cluster, node, namespace, pod, container, shard, "
    "first_offset",
)

EVENTS = Table(
    "events",
    (
        ("time", "DateTime64(9, 'UTC')"),
        ("cluster", "LowCardinality(String)"),
        ("node", "LowCardinality(String)"),
        ("namespace", "LowCardinality(String)"),
        ("pod", "LowCardinality(String)"),
        ("container", "LowCardinality(String)"),
        ("service", "LowCardinality(String)"),
        ("version", "LowCardinality(String)"),
        ("kind", "LowCardinality(String)"),
        ("pid", "UInt32"),
        ("ppid", "UInt32"),
        ("uid", "UInt32"),
        ("comm", "LowCardinality(String)"),
        ("result", "Int32"),
        ("latency_ns", "UInt64"),
        ("detail", "String"),
        ("attributes", "Map(LowCardinality(String), String)"),
    ),
    "kind, service, toStartOfHour(time), node, time",
)

INTERVALS = Table(
    "intervals",
    (
        ("time", "DateTime64(3, 'UTC')"),
        ("end_time", "DateTime64(3, 'UTC')"),
        ("cluster", "LowCardinality(String)"),
        ("node", "LowCardinality(String)"),
        ("collector", "LowCardinality(String)"),
        ("schema", "LowCardinality(String)"),
        ("producer", "LowCardinality(String)"),
        ("sequence", "UInt64"),
        ("rows", "UInt64"),
        ("events", "UInt64"),
        ("lost", "UInt64"),
        ("clamped", "UInt64"),
        ("topic", "LowCardinality(String)"),
        ("partition", "Int32"),
        ("offset", "Int64"),
        ("append_time", "DateTime64(3, 'UTC')"),
    ),
    "topic, partition, offset",
)

BATCHES = Table(
    "batches",
    (
        ("topic", "LowCardinality(String)"),
        ("partition", "Int32"),
        ("first_offset", "Int64"),
        ("end_offset", "Int64"),
        ("first_append", "DateTime64(3, 'UTC')"),
        ("last_append", "DateTime64(3, 'UTC')"),
    ),
    "topic, partition, first_offset, first_append",
)

# Views that answer with one row for each state of a window, the latest: read these, not the tables below them.
HOTSPOTS_FINAL = Table("hotspots_final", HOTSPOTS.columns, "")
LATENCY_FINAL = Table("latency_final", LATENCY_WINDOWS.columns, "")

TABLES = MappingProxyType(
    {t.name: t for t in (SAMPLES, STACKS, SAMPLES_1H, HOTSPOTS, LATENCY_WINDOWS, EVENTS, INTERVALS, BATCHES)}
)
VIEWS = MappingProxyType({v.name: v for v in (HOTSPOTS_FINAL, LATENCY_FINAL)})
