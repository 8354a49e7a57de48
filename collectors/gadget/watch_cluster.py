"""``gadget top`` and ``snapshot`` of all nodes: the rows that their agents publish, as each shows them of itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click
import pyarrow as pa
import pyarrow.compute as pc

from collectors.catalogue import Entry
from collectors.gadget import cluster as nodes
from collectors.gadget.filters import Filters
from collectors.gadget.latest import ONCE_S, Latest
from collectors.gadget.table import PLACE, Screen, ordered, placed, show_json
from collectors.gadget.watch import show
from collectors.table_rows import ROWS, from_events
from runtime.kafka_command import Where
from runtime.stopping import until_asked
from streams.schema.messages import Interval

_PATIENCE_S = 15.0
"""Then it is said that nothing comes: an agent publishes every 10 seconds unless it was told otherwise."""
_OTHERS_S = 2.0
"""All nodes publish at the same seconds of the clock; after the first of them the others may take so long."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Which rows (``most``: at most so many) and columns are shown, sorted by what; ``columns`` None: JSON."""

    wanted: Filters
    by: Sequence[str] | None
    columns: Sequence[str] | None
    most: int | None = None


@dataclass(slots=True)
class Followed:
    """Messages of one gadget as rows of its own columns (``columns``), of one ``node`` or ("") of all.

    ``moment``: rows are not of an interval.
    """

    columns: pa.Schema
    node: str
    moment: bool
    latest: Latest = field(default_factory=Latest)
    messages: int = 0
    unreadable: int = 0

    def take(self, interval: Interval, events: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Take in one message as ``nodes.follow`` hands it over; return its rows, nothing where it is not wanted."""
        if self.node and interval.node != self.node:
            return []
        try:
            rows = from_events(events, self.columns)
        except pa.ArrowInvalid:
            self.unreadable += 1
            return []
        length = None if self.moment else max(0, interval.end_ns - interval.start_ns)
        found = placed(rows, interval.end_ns, length, interval.cluster, interval.node)
        self.latest.take(interval, found, time.monotonic())
        self.messages += 1
        return [found]

    def chosen(self, parts: Sequence[pa.RecordBatch], shown: Shown) -> tuple[pa.RecordBatch, int]:
        """Return the wanted rows of all parts in their order, and how many rows stand in an ``(other)``."""
        empty = pa.RecordBatch.from_pylist([], schema=pa.schema([*PLACE.items(), *self.columns]))
        if not parts:
            return empty, 0
        rows = pa.Table.from_batches(parts).combine_chunks().to_batches()
        if not rows:
            return empty, 0
        more = int(pc.sum(rows[0].column(ROWS)).as_py() or 0)
        found = shown.wanted.apply(rows[0].drop_columns([ROWS]))
        return ordered(found, shown.by) if shown.by else found, more


def top(entry: Entry, columns: pa.Schema, where: Where, shown: Shown, interval_s: float, timeout_s: float) -> None:
    """Show who did most on all nodes in their latest intervals, until Ctrl-C or for so many seconds (0: for ever).

    As JSON, each interval of each node once, when it has come.
    """
    followed, screen = Followed(columns, shown.wanted.node, moment=False), Screen()
    began = due = time.monotonic()
    seen_rows, news, told = 0, False, False

    def take(interval: Interval, events: pa.RecordBatch) -> None:
        nonlocal seen_rows, news
        found, _ = followed.chosen(followed.take(interval, events), shown)
        seen_rows, news = seen_rows + found.num_rows, True
        if shown.columns is None:
            show_json(found.slice(0, shown.most))

    def draw(*, anyway: bool) -> None:
        nonlocal news
        left = followed.latest.forget(time.monotonic())
        if shown.columns is not None and followed.messages and (news or left or anyway):
            found, more = followed.chosen(followed.latest.rows(), shown)
            counts = f"{found.num_rows:,} rows, {followed.latest.lost():,} lost" + _beyond(more)
            title = f"{datetime.now(UTC):%H:%M:%S}  {entry.shown_as} of {len(followed.latest)} nodes: {counts}"
            screen.table(title, found, shown.columns, shown.most)
        news = False

    def tick(_caught_up: bool) -> None:
        nonlocal due, told
        now = time.monotonic()
        if now >= due:
            due = max(due + interval_s, now)
            draw(anyway=screen.room()[0] is not None)
        if not followed.messages and not told and now - began > _PATIENCE_S:
            nodes.nothing(entry)
            told = True

    def ready() -> None:
        click.echo(f"watching {entry.shown_as} of all nodes; Ctrl-C ends it", err=True)

    seen = nodes.follow(
        where.kafka.client_options(), where.topic_prefix, "event", entry.name, until_asked(), timeout_s, take,
        ready, tick=tick,
    )  # fmt: skip
    draw(anyway=False)
    seen.unreadable += followed.unreadable
    nodes.summary(seen, f"{followed.messages:,} intervals, {seen_rows:,} rows", entry, why=not told)


def snapshot(entry: Entry, columns: pa.Schema, where: Where, shown: Shown, timeout_s: float) -> None:
    """Show what there was on all nodes when they last looked, which is what they published in the last 30 seconds.

    Where that is nothing the next interval is waited for, for at most ``timeout_s`` seconds.
    """
    followed, stop = Followed(columns, shown.wanted.node, moment=True), until_asked()
    waiting, first_s = False, 0.0

    def take(interval: Interval, events: pa.RecordBatch) -> None:
        followed.take(interval, events)

    def tick(caught_up: bool) -> None:
        nonlocal waiting, first_s
        now = time.monotonic()
        if followed.messages and caught_up:
            first_s = first_s or now
            if not waiting or now - first_s >= _OTHERS_S:
                stop.set()
        elif caught_up and not waiting:
            waiting = True
            click.echo(f"nothing in the last {ONCE_S:.0f} s; waiting for the next interval", err=True)

    seen = nodes.follow(
        where.kafka.client_options(), where.topic_prefix, "event", entry.name, stop, timeout_s, take,
        lambda: None, back_s=ONCE_S, tick=tick,
    )  # fmt: skip
    found, more = followed.chosen(followed.latest.rows(), shown)
    show(found, None, shown.columns)
    seen.unreadable += followed.unreadable
    nodes.summary(seen, f"{found.num_rows:,} rows" + _beyond(more), entry)


def _beyond(more: int) -> str:
    return f", {more:,} more in (other)" if more else ""
