"""Settings of the sink process."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.settings import ClickHouseSettings, HttpSettings, KafkaSettings


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How much one insert holds, and how much waits in memory."""

    linger_s: float = 0.5
    """How long a record waits for others before they are inserted."""
    busy_linger_s: float = 1.0
    """The longest that it waits while the store is busy: an INSERT costs it tens of milliseconds whatever it holds."""
    rows: int = 500_000
    bytes: int = 32 * 1024 * 1024
    buffer_bytes: int = 192 * 1024 * 1024
    """Compressed bytes that wait in memory over all partitions; beyond it the sink stops reading."""
    parallel: int = 2
    """Batches that are decoded and inserted at the same time."""
    insert_timeout_s: int = 120


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Everything the sink reads at its start."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    clickhouse: ClickHouseSettings = field(default_factory=ClickHouseSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    group: str = "perfstream-sink"
    topic_prefix: str = ""
    session_timeout_ms: int = 10_000
    log_level: str = "info"
