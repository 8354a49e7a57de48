"""What the scraper tells about itself on ``/metrics``."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The scraper's counters and gauges, all named ``perfstream_scraper_...``; a target is named by its address."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        p, per = "perfstream_scraper_", ("target", "profile")
        self.scrapes = Counter(p + "scrapes", "Requests, failed ones included", per, registry=registry)
        self.failures = Counter(
            p + "failures", "Scrapes that published nothing, by reason", (*per, "reason"), registry=registry
        )
        self.skipped = Counter(
            p + "skipped", "Scrapes not begun in time: the one before took too long", per, registry=registry
        )
        self.up = Gauge(p + "up", "1 when the last scrape succeeded", per, registry=registry)
        self.last = Gauge(p + "last_success_seconds", "When the last scrape succeeded, Unix time", per,
                          registry=registry)  # fmt: skip
        self.rows = Counter(p + "rows", "Rows published", per, registry=registry)
        self.bytes = Counter(p + "bytes", "Bytes of profiles read", per, registry=registry)
        self.restarts = Counter(p + "restarts", "Targets found begun anew by a cumulative profile", per,
                                registry=registry)  # fmt: skip
        self.skewed = Counter(p + "skewed", "Profiles with a clock that was set aside", per, registry=registry)
        self.targets = Gauge(p + "targets", "Targets that a source has found", ("source",), registry=registry)
        self.left_out = Gauge(
            p + "targets_left_out", "Targets that are not scraped: there are too many", ("source",), registry=registry
        )
        self.seconds = Histogram(
            p + "seconds",
            "Duration of one scrape, the time that a CPU profile samples included",
            ("profile",),
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 5, 10, 15, 20, 30, 60),
            registry=registry,
        )
        self._per_target = (
            self.scrapes, self.skipped, self.up, self.last, self.rows, self.bytes, self.restarts, self.skewed
        )  # fmt: skip
        self._reasons: dict[tuple[str, str], set[str]] = {}

    def failed(self, labels: tuple[str, str], reason: str) -> None:
        """Count a scrape that published nothing."""
        self._reasons.setdefault(labels, set()).add(reason)
        self.failures.labels(*labels, reason).inc()
        self.up.labels(*labels).set(0)

    def forget(self, labels: tuple[str, str]) -> None:
        """Drop the series of a target that is gone, so that pods that come and go do not add up."""
        for metric in self._per_target:
            with suppress(KeyError):
                metric.remove(*labels)
        for reason in self._reasons.pop(labels, ()):
            with suppress(KeyError):
                self.failures.remove(*labels, reason)
