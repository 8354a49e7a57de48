"""What the agent tells about itself on ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from collectors.publisher import Published
from collectors.spool import Spool

_P = "perfstream_agent_"


class AgentMetrics:
    """The agent's counters and gauges, all named ``perfstream_agent_...``."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        per = ("collector",)
        self.rows = Counter(_P + "rows", "Rows published.", per, registry=registry)
        self.events = Counter(_P + "events", "Events that the rows stand for.", per, registry=registry)
        self.lost = Counter(_P + "lost", "Events that were not counted, reported in the rows.", per, registry=registry)
        self.messages = Counter(_P + "messages", "Messages published.", per, registry=registry)
        self.bytes = Counter(_P + "bytes", "Encoded bytes published.", per, registry=registry)
        self.up = Gauge(_P + "collector_up", "1 while the collector runs.", per, registry=registry)
        self.kernel_share = Gauge(
            _P + "kernel_cores", "Cores that its programs use, in the kernel or as processes.", per, registry=registry
        )
        self.collect_seconds = Histogram(
            _P + "collect_seconds", "Draining and publishing one interval.", per, registry=registry
        )
        self.ack_seconds = Histogram(
            _P + "ack_seconds", "From sending a message to Kafka's acknowledgement.", registry=registry
        )
        self.effort = Gauge(
            _P + "effort", "Share of the collector's full effort that the budget allows.", per, registry=registry
        )
        self.budget_used = Gauge(_P + "budget_used", "CPU used, as a share of the budget.", registry=registry)

    def published(self, collector: str, done: Published, events: int, lost: int, seconds: float) -> None:
        """Count one interval of one collector."""
        self.rows.labels(collector).inc(done.rows)
        self.events.labels(collector).inc(events)
        self.lost.labels(collector).inc(lost)
        self.messages.labels(collector).inc(done.messages)
        self.bytes.labels(collector).inc(done.bytes)
        self.collect_seconds.labels(collector).observe(seconds)


class SpoolMetrics(Collector):
    """What waits in the spool and what it dropped, read when it is asked for."""

    def __init__(self, spool: Spool, registry: CollectorRegistry = REGISTRY) -> None:
        self._spool = spool
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        loads = self._spool.loads()
        yield GaugeMetricFamily(_P + "spool_messages", "Messages that wait for Kafka.", loads.messages)
        yield GaugeMetricFamily(_P + "spool_bytes", "Bytes that wait for Kafka.", loads.bytes)
        yield CounterMetricFamily(_P + "spool_dropped_events", "Events dropped with messages.", loads.dropped_events)
        yield CounterMetricFamily(_P + "spool_dropped_messages", "Messages dropped.", loads.dropped_messages)
        yield CounterMetricFamily(_P + "spool_corrupt", "Records that could not be read back.", loads.corrupt_records)
