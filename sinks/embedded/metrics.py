"""The store's metrics and health."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from runtime.observe import Health
from sinks.embedded.engine import Engine
from sinks.embedded.errors import QueryError

_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """Counters of one store process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.queries = Counter("perfstream_store_queries", "Statements, by kind", ["kind"], registry=self.registry)
        self.errors = Counter(
            "perfstream_store_errors", "Failed requests, by ClickHouse's error code", ["code"], registry=self.registry
        )
        self.seconds = Histogram(
            "perfstream_store_query_seconds", "Time from the statement to the end of its answer",
            ["kind"], buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.insert_rows = Counter("perfstream_store_insert_rows", "Rows written by INSERTs", registry=self.registry)
        self.insert_bytes = Counter(
            "perfstream_store_insert_bytes", "Decoded bytes of INSERT data", registry=self.registry
        )
        self.read_rows = Counter("perfstream_store_read_rows", "Rows read by statements", registry=self.registry)
        self.running = Gauge("perfstream_store_running", "Statements running now", ["kind"], registry=self.registry)
        self.cancelled = Gauge(
            "perfstream_store_cancelled", "Statements ended because the client had gone", registry=self.registry
        )
        self.connections = Gauge("perfstream_store_connections", "Open client connections", registry=self.registry)
        self.free = Gauge("perfstream_store_disk_free_bytes", "Free space beside the data", registry=self.registry)
        self.used = Gauge("perfstream_store_data_bytes", "Bytes of active data parts", registry=self.registry)
        self.memory = Gauge("perfstream_store_engine_memory_bytes", "Engine's tracked memory", registry=self.registry)


class Checks(threading.Thread):
    """Looks at the engine and the disk every few seconds."""

    def __init__(self, engine: Engine, health: Health, metrics: Metrics, minimum_free: int, path: Path) -> None:
        super().__init__(name="checks", daemon=True)
        self._engine = engine
        self._health = health
        self._metrics = metrics
        self._minimum_free = minimum_free
        self._path = path
        self.stop = threading.Event()

    def run(self) -> None:
        """Check until stopped."""
        while True:
            self.check()
            if self.stop.wait(5.0):
                return

    def check(self) -> None:
        """Check once."""
        try:
            free = self._engine.free_bytes()
        except OSError as error:
            self._health.ill("disk", f"{self._path}: {error.strerror}")
            return
        self._metrics.free.set(free)
        if free < self._minimum_free:
            self._health.ill("disk", f"{free >> 20} MiB free at {self._path}, {self._minimum_free >> 20} MiB wanted")
        else:
            self._health.well("disk")
        began = time.monotonic()
        try:
            with self._engine.connection() as connection:
                connection.set({"max_execution_time": "5"})
                if connection.text("SELECT 1") != "1\n":
                    raise QueryError.of(1001, "STD_EXCEPTION", "SELECT 1 did not return 1")
                size = connection.text("SELECT sum(bytes_on_disk) FROM system.parts WHERE active")
                self._metrics.used.set(int(size))
                memory = connection.text("SELECT value FROM system.metrics WHERE metric = 'MemoryTracking'")
                self._metrics.memory.set(int(memory or 0))
        except (QueryError, ValueError) as error:
            self._health.ill("engine", str(error)[:200])
            return
        if time.monotonic() - began > 10.0:
            self._health.ill("engine", "SELECT 1 took longer than 10 s")
        else:
            self._health.well("engine")
