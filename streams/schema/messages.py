"""What a record holds: one Arrow schema for each kind of message, and the headers that every message carries.

A message is one node, one collector, one interval. Its value is an Arrow IPC stream (zstd) of exactly one record
batch; its headers say the schema's name and version, the producer, the sequence number, the interval, and what was
lost in it. Columns may be added; what a column means never changes. Columns that a decoder does not know are ignored,
columns that an older producer did not send are filled with their defaults (``OPTIONAL``).

Times are integer nanoseconds since the Unix epoch, UTC, event time. ``time_ns`` of profile and latency rows is the
start of the interval in which the node counted them, of events the instant at which it happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

TEXT = pa.dictionary(pa.int32(), pa.string())

STACK = pa.struct(
    [
        pa.field("id", pa.uint64(), nullable=False),
        pa.field("frames", pa.list_(pa.field("item", TEXT, nullable=False)), nullable=False),
    ]
)
"""A stack: its id (see ``streams.schema.stacks``) and the text of each of its frames, root first. A message holds each
frame's text once."""

STACK_1 = pa.struct([pa.field("id", pa.uint64(), nullable=False), pa.field("frames", pa.string(), nullable=False)])
"""A stack in version 1 of ``profile``: its frames as one text."""

WORKLOAD = ("namespace", "pod", "container", "service", "version")
"""The part of the identity that differs from row to row; cluster and node stand in the headers."""

IDENTITY = ("cluster", "node", *WORKLOAD)

_WORKLOAD_FIELDS = [pa.field(name, TEXT, nullable=False) for name in WORKLOAD]

PROFILE = pa.schema(
    [
        pa.field("time_ns", pa.int64(), nullable=False),
        *_WORKLOAD_FIELDS,
        pa.field("type", TEXT, nullable=False),  # cpu, offcpu, alloc_space, inuse_space, goroutine, mutex, ...
        pa.field("unit", TEXT, nullable=False),  # nanoseconds, bytes, count
        pa.field("stack", pa.dictionary(pa.int32(), STACK), nullable=False),
        pa.field("value", pa.int64(), nullable=False),  # in ``unit``; for cpu: samples * period
        pa.field("period", pa.int64(), nullable=False),  # the true sampling period in ``unit``; 0 when not sampled
    ]
)

LATENCY = pa.schema(
    [
        pa.field("time_ns", pa.int64(), nullable=False),
        *_WORKLOAD_FIELDS,
        pa.field("probe", TEXT, nullable=False),  # runqlat, blockio, syscall, tcpconnect, ...
        pa.field("operation", TEXT, nullable=False),  # syscall name, "vda write", ...; "" when the probe has one
        pa.field("buckets", pa.list_(pa.uint16()), nullable=False),  # see ``streams.schema.histogram``, ascending
        pa.field("counts", pa.list_(pa.uint64()), nullable=False),
        pa.field("count", pa.uint64(), nullable=False),
        pa.field("sum_ns", pa.uint64(), nullable=False),
        pa.field("max_ns", pa.uint64(), nullable=False),
        pa.field("period", pa.uint32(), nullable=False),  # each event taken stands for this many; 1: all were taken
    ]
)

EVENT = pa.schema(
    [
        pa.field("time_ns", pa.int64(), nullable=False),
        *_WORKLOAD_FIELDS,
        pa.field("kind", TEXT, nullable=False),  # exec, exit, tcpconnect, tcpaccept, oomkill, ...
        pa.field("pid", pa.uint32(), nullable=False),
        pa.field("ppid", pa.uint32(), nullable=False),
        pa.field("uid", pa.uint32(), nullable=False),
        pa.field("comm", TEXT, nullable=False),
        pa.field("result", pa.int32(), nullable=False),  # 0, -errno, or for exit the wait status
        pa.field("latency_ns", pa.uint64(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),  # executable path, "addr:port", victim, ...
        pa.field("attributes", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)

_WINDOW_FIELDS = [
    pa.field("window_start_ns", pa.int64(), nullable=False),
    pa.field("window_s", pa.uint32(), nullable=False),
    # A window's state is a whole, identified by the raw partition it was taken from (shard) and the offset of the
    # first record in it; a later state of it (greater ``last_offset``) replaces an earlier one.
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("first_offset", pa.int64(), nullable=False),
    pa.field("last_offset", pa.int64(), nullable=False),
    pa.field("late", pa.uint8(), nullable=False),  # 1: arrived after the window had closed
]

HOTSPOT = pa.schema(
    [
        *_WINDOW_FIELDS,
        pa.field("cluster", TEXT, nullable=False),
        pa.field("namespace", TEXT, nullable=False),
        pa.field("service", TEXT, nullable=False),
        pa.field("version", TEXT, nullable=False),
        pa.field("type", TEXT, nullable=False),
        pa.field("unit", TEXT, nullable=False),
        pa.field("function", TEXT, nullable=False),  # "(other)" holds the remainder, so that sums stay exact
        pa.field("self", pa.int64(), nullable=False),
        pa.field("total", pa.int64(), nullable=False),
    ]
)

LATENCY_WINDOW = pa.schema(
    [
        *_WINDOW_FIELDS,
        pa.field("cluster", TEXT, nullable=False),
        pa.field("node", TEXT, nullable=False),
        *[f for f in LATENCY if f.name != "time_ns"],
    ]
)

OTHER = "(other)"
"""The function that stands for everything beyond the number of functions that a window keeps."""

SCHEMAS = MappingProxyType(
    {
        "profile": PROFILE,
        "latency": LATENCY,
        "event": EVENT,
        "hotspot": HOTSPOT,
        "latency_window": LATENCY_WINDOW,
    }
)

RELEASED = MappingProxyType(dict.fromkeys(SCHEMAS, frozenset({1})) | {"profile": frozenset({1, 2})})
"""Every version ever released of each schema: all are read, the greatest is written. ``codec`` makes of an older one
what ``SCHEMAS`` says."""

PROFILE_1 = pa.schema([pa.field("stack", pa.dictionary(pa.int32(), STACK_1), nullable=False) if f.name == "stack" else f
                       for f in PROFILE])  # fmt: skip
"""Version 1 of ``profile``: stacks as text."""

OPTIONAL: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {"latency": MappingProxyType({"period": 1}), "latency_window": MappingProxyType({"period": 1})}
)
"""Per schema, the columns that were added after version 1, with the value that stands in for them."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The headers of a message: who counted what, when, and what was lost.

    ``lost`` is the number of events (samples, latencies, events) that the node knows it did not count in this
    interval: a full map, a full queue, a spool that overflowed. ``events`` is how many raw events the rows stand for.
    ``sequence`` grows by one for each message of a (producer, collector); ``producer`` is new at each start.
    """

    collector: str
    cluster: str
    node: str
    producer: str
    sequence: int
    start_ns: int
    end_ns: int
    rows: int = 0
    events: int = 0
    lost: int = 0
    version: int = 0
    """The version of the schema that a message was read in; 0 of one that was not read."""
