"""Settings of ``perfstream agent``. Imports nothing that starts threads: see ``collectors.privileges``."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from collectors.kubernetes.settings import KubernetesSettings
from collectors.scrapers.settings import DiscoverySettings, ScrapeTarget
from runtime.settings import HttpSettings, KafkaSettings

DEFAULT_HZ = 49.0


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """``[agent]``: what is measured, how often, and what it may cost."""

    interval_s: int = 10
    """Seconds that one message covers; intervals begin at multiples of it."""
    collectors: tuple[str, ...] = ()
    """Names of the collectors to run (``perfstream gadget list``); empty or ``default`` are those that are always on,
    ``none`` runs none."""
    cpu_hz: float = DEFAULT_HZ
    offcpu_threshold_ms: float = 1.0
    offcpu_most_per_s: float = 200.0
    """Waits that are taken a second; where more end, long ones count in full and short ones by chance."""
    python_hz: float = 19.0
    """Samples a second of each process that the collector ``python`` reads, at most."""
    budget_percent: float = 1.0
    """CPU that the agent and its programs may use, in percent of the node; beyond it sampling gets coarser."""
    scrape: tuple[ScrapeTarget, ...] = ()
    discovery: DiscoverySettings = field(default_factory=DiscoverySettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """``[spool]``: where messages wait while Kafka is away, and how much of them."""

    directory: Path = Path(".perfstream/spool")
    bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything that the agent reads."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    agent: AgentOptions = field(default_factory=AgentOptions)
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    cluster: str = "default"
    node: str = field(default_factory=socket.gethostname)
    topic_prefix: str = ""
    log_level: str = "info"
