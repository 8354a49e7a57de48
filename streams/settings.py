"""Settings of ``perfstream worker`` and ``perfstream topics``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runtime.settings import HttpSettings, KafkaSettings
from streams.watermark import WindowSettings


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """``[worker]``: the process around the windows. Times in seconds."""

    group: str = "perfstream-worker"
    datadir: Path = Path(".perfstream/worker")
    flush_s: float = 1.0
    """How often results are published."""
    partial_s: float = 3.0
    """How old the published state of an open window may get when publishing it each ``flush_s`` would be costly."""
    partial_lagging_s: float = 15.0
    """The same while the worker is behind the end of the topic: nobody reads those windows as fresh ones."""
    partial_rows: int = 20_000
    """Up to this many changed rows a partition, open windows are published at every flush."""
    stall_s: float = 60.0
    """Without progress in spite of lag for this long, the worker ends itself with an error."""
    session_timeout_s: float = 6.0
    """How long after its death a worker's partitions wait for another: the greater part of a recovery."""
    heartbeat_s: float = 2.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything that the worker reads."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    windows: WindowSettings = field(default_factory=WindowSettings)
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    topic_prefix: str = ""
    partitions: int = 0
    """Partitions that the raw and result topics must have at least; 0 accepts what exists, and creates as declared."""
    log_level: str = "info"
