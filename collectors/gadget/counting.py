"""``gadget profile``: latencies counted in the kernel, of this node or of all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import click
import pyarrow as pa

from collectors.catalogue import Entry, Shared
from collectors.gadget import cluster as nodes
from collectors.gadget import histogram
from collectors.gadget.filters import Filters
from collectors.settings import AgentSettings
from collectors.symbols import Symbolizer
from collectors.wanted import Wanted
from collectors.workload import Workloads
from runtime.kafka_command import Where
from runtime.stopping import until_asked
from streams.schema.messages import Interval

Print = Callable[[pa.RecordBatch], None]


def here(
    entry: Entry, in_kernel: Wanted, wanted: Filters, show: Print, interval_s: float | None, timeout_s: float
) -> None:
    """Count on this node; print at the end, or every ``interval_s`` seconds anew."""
    settings = AgentSettings()
    collector = entry.load().make(Shared(Workloads(), Symbolizer(), settings.agent), in_kernel)
    stop = until_asked()
    collector.start()
    began = time.time_ns()
    try:
        click.echo(f"counting {entry.shown_as}; Ctrl-C shows it", err=True)
        deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            stop.wait(min(left, interval_s or left, 3600))
            if not interval_s and not stop.is_set() and time.monotonic() < deadline:
                continue
            now = time.time_ns()
            batch = collector.collect(began, now)
            began = now
            rows = wanted.apply(nodes.with_node(batch.batch, settings.cluster, settings.node)) if batch else None
            if rows is not None and rows.num_rows:
                show(rows)
            events, lost = (batch.events, batch.lost) if batch else (0, 0)
            click.echo(f"{events:,} events, {lost:,} lost", err=True)
    finally:
        collector.close()


def cluster(
    entry: Entry, where: Where, wanted: Filters, show: Print, interval_s: float | None, timeout_s: float
) -> None:
    """Add up what every node publishes; print at the end, or every ``interval_s`` seconds anew."""
    held: list[pa.RecordBatch] = []
    lock = threading.Lock()

    def take(_interval: Interval, rows: pa.RecordBatch) -> None:
        with lock:
            held.append(wanted.apply(rows))

    def flush() -> None:
        with lock:
            rows, held[:] = list(held), []
        if merged := histogram.merged(rows):
            show(merged)

    stop = until_asked()
    ended = threading.Event()

    def tick() -> None:
        while interval_s and not ended.wait(interval_s):
            flush()

    ticking = threading.Thread(target=tick, daemon=True)

    def ready() -> None:
        click.echo(f"adding up {entry.shown_as} of all nodes; Ctrl-C shows it", err=True)
        ticking.start()

    try:
        seen = nodes.follow(
            where.kafka.client_options(), where.topic_prefix, "latency", entry.name, stop, timeout_s, take, ready
        )
    finally:
        ended.set()
    flush()
    nodes.summary(seen, f"{seen.events:,} events", entry)
