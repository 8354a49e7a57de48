"""What the push endpoint tells about itself on ``/metrics``."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters and gauges, all named ``perfstream_ingest_...``."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        p = "perfstream_ingest_"
        self.requests = Counter(p + "requests", "Requests by route and HTTP status", ("route", "status"),
                                registry=registry)  # fmt: skip
        self.refused = Counter(p + "refused", "Requests refused, by reason", ("reason",), registry=registry)
        self.profiles = Counter(p + "profiles", "Profiles that Kafka has acknowledged", registry=registry)
        self.rows = Counter(p + "rows", "Rows that Kafka has acknowledged", registry=registry)
        self.messages = Counter(p + "messages", "Messages that Kafka has acknowledged", registry=registry)
        self.bytes = Counter(p + "bytes", "Bytes of bodies received", registry=registry)
        self.dropped = Counter(p + "dropped_values", "Negative values left out of accepted profiles", registry=registry)
        self.baselines = Counter(
            p + "baselines", "Cumulative profiles that were only a baseline to grow from", registry=registry
        )
        self.inflight = Gauge(p + "inflight_bytes", "Bytes of bodies not yet acknowledged", registry=registry)
        self.connections = Gauge(p + "connections", "Open client connections", registry=registry)
        self.seconds = Histogram(
            p + "seconds",
            "From a request's last byte to its answer",
            buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
        self.ack_seconds = Histogram(
            p + "ack_seconds",
            "From sending a message to its acknowledgement",
            buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
