"""What the sink tells about itself on ``/metrics``."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The sink's counters and gauges, all with the prefix ``perfstream_sink_``."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        p = "perfstream_sink_"
        self.rows = Counter(p + "rows", "Rows stored", ["table"], registry=registry)
        self.bytes = Counter(p + "bytes", "Bytes sent to the store", ["table"], registry=registry)
        self.messages = Counter(p + "messages", "Messages stored", ["topic"], registry=registry)
        self.inserts = Counter(p + "inserts", "Insert requests that succeeded", ["table"], registry=registry)
        self.failures = Counter(p + "insert_failures", "Insert requests that failed", ["kind"], registry=registry)
        self.seconds = Histogram(p + "insert_seconds", "Duration of one insert request", ["table"], registry=registry)
        self.dead = Counter(p + "dead_letters", "Records sent to the dead-letter topic", ["reason"], registry=registry)
        self.clamped = Counter(p + "clamped_rows", "Rows whose clock was too far ahead or behind", registry=registry)
        self.trimmed = Counter(p + "trimmed_offsets", "Offsets removed by retention before read", registry=registry)
        self.replays = Counter(
            p + "replayed_batches", "Batches read again after an intent was found", registry=registry
        )
        self.rebalances = Counter(p + "rebalances", "Assignments of partitions", registry=registry)
        self.lag = Gauge(p + "lag_messages", "Messages not stored yet", ["topic", "partition"], registry=registry)
        self.lag_seconds = Gauge(p + "lag_seconds", "Age of the oldest message not stored yet", registry=registry)
        self.waiting = Gauge(p + "waiting_bytes", "Compressed bytes waiting in memory", registry=registry)
        self.freshness = Histogram(
            p + "freshness_seconds",
            "From the end of an interval to its rows being visible",
            buckets=(0.5, 1, 2, 3, 5, 7.5, 10, 15, 30, 60, 300, 3600),
            registry=registry,
        )
