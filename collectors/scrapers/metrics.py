"""What the scraper tells about itself on ``/metrics``."""

from __future__ import annotations

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
        self.seconds = Histogram(
            p + "seconds",
            "Duration of one scrape, the time that a CPU profile samples included",
            ("profile",),
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 5, 10, 15, 20, 30, 60),
            registry=registry,
        )
