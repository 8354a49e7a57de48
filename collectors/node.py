"""The agent's process: everything put together, run until it is asked to stop."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING

import pyarrow as pa

from collectors import privileges
from collectors.agent import Agent
from collectors.agent_metrics import AgentMetrics, SpoolMetrics
from collectors.catalogue import Shared
from collectors.publisher import Publisher
from collectors.settings import AgentSettings
from collectors.spool import Spool
from collectors.symbols import Symbolizer
from collectors.workload import Workloads
from runtime.observe import Health, serve

if TYPE_CHECKING:
    from collectors.kubernetes.watch import PodWatch
    from collectors.scrapers.scraper import Scrapers, Source

log = logging.getLogger("perfstream.agent")
_LAST_S = 3.0
_PODS_S = 3.0


def run(settings: AgentSettings, stop: threading.Event) -> None:
    """Run the agent until ``stop``.

    Raises:
        SettingsError: the spool or the port cannot be used.
        UsageError: a collector that is asked for does not exist.
    """
    # Arrow's own allocators keep what an interval needed; here it is a few MB, given back ten seconds later.
    pa.set_memory_pool(pa.system_memory_pool())
    health, metrics = Health(), AgentMetrics()
    spool = Spool(settings.spool.directory, settings.spool.bytes)
    SpoolMetrics(spool)
    health.ask("spool", lambda: spool.trouble)
    publisher = Publisher(
        settings.kafka, spool, settings.cluster, settings.node, settings.topic_prefix, metrics.ack_seconds.observe
    )
    watch = _watch(settings)
    shared = Shared(Workloads(watch.pods if watch else None), Symbolizer(), settings.agent)
    agent = Agent(settings, shared, publisher, health, metrics)
    scrapers = _scrapers(settings, publisher, watch)
    publisher.start()
    try:
        if watch is not None:
            health.ask("kubernetes", lambda: watch.trouble)
            watch.start()
        agent.start()
        if watch is not None:
            watch.wait(_PODS_S)  # usually over: compiling took longer
        if more := privileges.beyond(kept=privileges.kept(settings.agent.collectors).values()):
            log.warning("the agent has rights that it does not need", extra={"rights": more[:8]})
        if scrapers is not None:
            scrapers.start()
        port = serve(settings.http, health)
        log.info("agent runs", extra={"node": settings.node, "http_port": port})
        # What lives until the end need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        agent.run(stop)
    finally:
        if scrapers is not None:
            scrapers.close(_LAST_S)
        if watch is not None:
            watch.close()
        agent.close()
        publisher.close(_LAST_S)
        spool.close()
        shared.symbolizer.close()


def _watch(settings: AgentSettings) -> PodWatch | None:
    if not settings.agent.kubernetes.address():
        return None
    from collectors.kubernetes.watch import PodWatch

    return PodWatch(settings.agent.kubernetes, settings.node)


def _scrapers(settings: AgentSettings, publisher: Publisher, watch: PodWatch | None) -> Scrapers | None:
    discovery = settings.agent.discovery
    if not settings.agent.scrape and not discovery.files and not (watch is not None and discovery.pods):
        return None
    from collectors.scrapers.annotations import PodTargets
    from collectors.scrapers.files import FileTargets
    from collectors.scrapers.scraper import Scrapers

    sources: list[Source] = []
    if discovery.files:
        sources.append(FileTargets(discovery))
    if watch is not None and discovery.pods:
        sources.append(PodTargets(watch.pods, discovery))
    return Scrapers(settings.agent.scrape, publisher.publish, sources=sources, most=discovery.max_targets)
