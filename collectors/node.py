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
    from collectors.scrapers.scraper import Scrapers

log = logging.getLogger("perfstream.agent")
_LAST_S = 3.0


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
    shared = Shared(Workloads(), Symbolizer(), settings.agent)
    agent = Agent(settings, shared, publisher, health, metrics)
    scrapers = _scrapers(settings, publisher)
    publisher.start()
    try:
        agent.start()
        if more := privileges.beyond():
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
        agent.close()
        publisher.close(_LAST_S)
        spool.close()
        shared.symbolizer.close()


def _scrapers(settings: AgentSettings, publisher: Publisher) -> Scrapers | None:
    if not settings.agent.scrape:
        return None
    from collectors.scrapers.scraper import Scrapers

    return Scrapers(settings.agent.scrape, publisher.publish)
