"""``gadget trace``: events as they happen, of this node or of all."""

from __future__ import annotations

import time

import click
import pyarrow as pa

from collectors.catalogue import Entry, Shared
from collectors.events import EventCollector
from collectors.gadget import cluster as nodes
from collectors.gadget.filters import Filters
from collectors.gadget.output import Printer
from collectors.kubernetes.live import workloads
from collectors.settings import AgentSettings
from collectors.symbols import Symbolizer
from collectors.wanted import Wanted
from runtime.kafka_command import Where
from runtime.stopping import until_asked
from streams.schema.messages import Interval

_POLL_S = 0.2


def here(entry: Entry, in_kernel: Wanted, wanted: Filters, printer: Printer, timeout_s: float) -> None:
    """Show this node's events. What the kernel knows of them is looked at there (``in_kernel``), the rest here."""
    settings = AgentSettings()
    collector = entry.load().make(Shared(workloads(), Symbolizer(), settings.agent), in_kernel)
    assert isinstance(collector, EventCollector)
    stop = until_asked()
    collector.start(live=True)
    try:
        printer.heading()
        deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        seen = shown = 0
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            records = collector.poll(min(left, _POLL_S))
            if not len(records):
                continue
            collector.observe(records)
            rows = wanted.apply(nodes.with_node(collector.rows(records), settings.cluster, settings.node))
            seen, shown = seen + len(records), shown + rows.num_rows
            if rows.num_rows:
                printer.rows(rows)
        click.echo(f"{seen:,} events, {shown:,} shown, {collector.lost():,} lost", err=True)
    finally:
        collector.close()


def cluster(entry: Entry, where: Where, wanted: Filters, printer: Printer, timeout_s: float) -> None:
    """Show the events of every node whose agent collects them."""
    shown = 0

    def show(_interval: Interval, rows: pa.RecordBatch) -> None:
        nonlocal shown
        rows = wanted.apply(rows)
        shown += rows.num_rows
        if rows.num_rows:
            printer.rows(rows)

    seen = nodes.follow(
        where.kafka.client_options(), where.topic_prefix, "event", entry.name, until_asked(), timeout_s, show,
        printer.heading,
    )  # fmt: skip
    nodes.summary(seen, f"{seen.events:,} events, {shown:,} shown", entry)
