"""The worker's Prometheus metrics, all named ``perfstream_worker_...``."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from streams.windows import Counts, PartitionWindows

_PER = ("topic", "partition")


class WorkerMetrics:
    """Counters and gauges; ``observe`` copies what a partition has counted since the last time."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        name = "perfstream_worker_"
        self._totals = {
            "messages": Counter(name + "messages", "Raw messages taken in.", _PER, registry=registry),
            "rows": Counter(name + "rows", "Raw rows taken in.", _PER, registry=registry),
            "late_rows": Counter(
                name + "late_rows", "Rows that came after their window closed.", _PER, registry=registry
            ),
            "clamped_rows": Counter(
                name + "clamped_rows", "Rows of clocks too far ahead or behind.", _PER, registry=registry
            ),
        }
        self.bad = Counter(name + "bad_records", "Records that cannot be read.", ("reason",), registry=registry)
        self.result_rows = Counter(name + "result_rows", "Rows published.", ("schema",), registry=registry)
        self.commit_failures = Counter(name + "commit_failures", "Commits that failed.", registry=registry)
        self.expired = Counter(name + "expired_messages", "Messages deleted before they were read.", registry=registry)
        self.flush_seconds = Histogram(name + "flush_seconds", "Time of one flush, acknowledged.", registry=registry)
        self.open = Gauge(name + "open_windows", "Windows still open.", _PER, registry=registry)
        self.unpublished = Gauge(
            name + "unpublished_rows", "Raw rows whose windows have not been published since.", _PER, registry=registry
        )
        self.lag = Gauge(name + "lag_messages", "Raw messages not yet taken in.", _PER, registry=registry)
        self.lag_seconds = Gauge(name + "lag_seconds", "Age of the oldest message not taken in yet.", registry=registry)
        self.watermark_lag = Gauge(
            name + "watermark_lag_seconds", "Wall clock minus watermark.", _PER, registry=registry
        )
        self._seen: dict[tuple[str, int], Counts] = {}

    def observe(self, topic: str, partition: int, windows: PartitionWindows[Any], lag: int) -> None:
        """Publish one partition's numbers."""
        at = (topic, str(partition))
        seen = self._seen.setdefault((topic, partition), Counts())
        for field in fields(Counts):
            new = getattr(windows.counts, field.name)
            if field.name in self._totals:
                self._totals[field.name].labels(*at).inc(new - getattr(seen, field.name))
            setattr(seen, field.name, new)
        self.open.labels(*at).set(len(windows.open))
        self.lag.labels(*at).set(lag)
        self.unpublished.labels(*at).set(windows.unpublished_rows)
        if windows.snapshot.watermark_ns > 0:
            self.watermark_lag.labels(*at).set(time.time() - windows.snapshot.watermark_ns / 1e9)

    def forget(self, topic: str, partition: int) -> None:
        """Begin anew for a partition that was revoked."""
        self._seen.pop((topic, partition), None)
        for gauge in (self.open, self.lag, self.unpublished, self.watermark_lag):
            if (topic, str(partition)) in gauge._metrics:  # noqa: SLF001 - there is no public question for it
                gauge.remove(topic, str(partition))
