"""What the pod watch tells about itself on ``/metrics``."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from collectors.kubernetes.pods import Pods


class Metrics:
    """The pod watch's counters and gauges, all named ``perfstream_kubernetes_...``."""

    def __init__(self, pods: Pods, registry: CollectorRegistry = REGISTRY) -> None:
        p = "perfstream_kubernetes_"
        self.pods = Gauge(p + "pods", "Pods of this node that are known", registry=registry)
        self.pods.set_function(lambda: len(pods))
        self.lists = Counter(p + "lists", "Whole lists read", registry=registry)
        self.watches = Counter(p + "watches", "Watches begun", registry=registry)
        self.events = Counter(p + "events", "Events of watches", ("type",), registry=registry)
        self.failures = Counter(
            p + "failures", "Lists and watches that failed, by reason", ("reason",), registry=registry
        )
        self.left_out = Counter(p + "pods_left_out", "Pods that there was no room for", registry=registry)
        self.last = Gauge(p + "last_success_seconds", "When the API server last answered, Unix time",
                          registry=registry)  # fmt: skip
