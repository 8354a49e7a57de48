"""``gadget profile``: latencies and stacks counted in the kernel, of this node or of all."""

from __future__ import annotations

import threading
import time

import click
import pyarrow as pa

from collectors.catalogue import Entry, Shared
from collectors.gadget import cluster as nodes
from collectors.gadget.filters import Filters
from collectors.gadget.view import View
from collectors.kubernetes.live import workloads
from collectors.settings import AgentSettings
from collectors.symbols import Symbolizer
from collectors.wanted import Wanted
from runtime.kafka_command import Where
from runtime.stopping import until_asked
from streams.schema.messages import Interval

_GATHER_S = 10.0


def here(
    entry: Entry, in_kernel: Wanted, wanted: Filters, view: View, interval_s: float | None, timeout_s: float
) -> None:
    """Count on this node; show it at the end, or every ``interval_s`` seconds anew."""
    settings = AgentSettings()
    collector = entry.load().make(Shared(workloads(), Symbolizer(), settings.agent), in_kernel)
    stop = until_asked()
    collector.start()
    began_ns, began = time.time_ns(), time.monotonic()
    deadline = began + timeout_s if timeout_s else float("inf")
    due = began + interval_s if interval_s else deadline
    held: list[pa.RecordBatch] = []
    events = lost = 0
    try:
        click.echo(f"counting {entry.shown_as}; Ctrl-C shows it", err=True)
        ended = False
        while not ended:
            # Taken now and then, so that the kernel's maps do not fill however long this runs.
            stop.wait(min(max(0.0, min(due, deadline) - time.monotonic()), _GATHER_S))
            ended = stop.is_set() or time.monotonic() >= deadline
            now_ns = time.time_ns()
            batch = collector.collect(began_ns, now_ns)
            began_ns = now_ns
            if batch is not None:
                held.append(wanted.apply(nodes.with_node(batch.batch, settings.cluster, settings.node)))
                events, lost = events + batch.events, lost + batch.lost
            rows = view.merge(held)
            if not ended and time.monotonic() < due:
                held = [rows] if rows is not None else []
                continue
            if rows is not None and rows.num_rows:
                view.show(rows)
            click.echo(f"{events:,} events, {lost:,} lost", err=True)
            held, events, lost, due = [], 0, 0, due + (interval_s or 0.0)
    finally:
        collector.close()


def cluster(
    entry: Entry, where: Where, wanted: Filters, view: View, interval_s: float | None, timeout_s: float
) -> None:
    """Add up what every node publishes; show it at the end, or every ``interval_s`` seconds anew."""
    held: list[pa.RecordBatch] = []
    lock = threading.Lock()

    def take(_interval: Interval, rows: pa.RecordBatch) -> None:
        with lock:
            held.append(wanted.apply(rows))

    def flush() -> None:
        with lock:
            rows, held[:] = list(held), []
        if merged := view.merge(rows):
            view.show(merged)

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
            where.kafka.client_options(), where.topic_prefix, view.schema, entry.name, stop, timeout_s, take, ready
        )
    finally:
        ended.set()
    flush()
    nodes.summary(seen, f"{seen.events:,} events", entry)
