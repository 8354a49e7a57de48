"""Settings of ``perfstream up``: ports and bounds. The stages read their own from the same file and environment."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the local stack; 0 takes a free one (and keeps it across restarts of the same directory)."""

    kafka: int = 19092
    kafka_controller: int = 19093
    clickhouse: int = 8123
    agent: int = 9464
    worker: int = 9465
    sink: int = 9466
    store: int = 9467
    push: int = 4040
    otlp: int = 4317
    ingest: int = 9468

    @classmethod
    def free(cls) -> Ports:
        """Return ports that are all taken from what is free."""
        return cls(**{spec.name: 0 for spec in fields(cls)})


@dataclass(frozen=True, slots=True)
class StackSettings:
    """``[stack]``-less settings of the supervisor: ``[ports]`` and the limits of its patience."""

    ports: Ports = field(default_factory=Ports)
    partitions: int = 4
    give_up_after: int = 6
    """A stage that dies this often without having run for ``steady_s`` in between ends the stack."""
    steady_s: float = 60.0
    stop_timeout_s: float = 8.0
