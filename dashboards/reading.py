"""What the reading commands show, as plain data: lists of mappings whose keys are the table's columns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dashboards import queries
from dashboards.queries import Query
from dashboards.selection import Selection
from dashboards.store import Store
from streams.schema.errors import UsageError
from streams.schema.messages import IDENTITY

SAMPLES_KEPT = timedelta(days=30)
"""How long the samples are kept (their TTL); before that only the hourly rollup answers."""


WIDE = timedelta(hours=3)
"""A range from which whole hours are read from the rollup."""


@dataclass(frozen=True, slots=True)
class Flamegraph:
    """Nodes in depth-first pre-order under one root, columns of equal length; values in ``unit``.

    One that shows a difference has the shares (0..1) ``before`` and ``after`` besides; others leave them empty.
    """

    unit: str
    level: list[int]
    value: list[float]
    self: list[float]
    label: list[str]
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Return the whole, 0 when there is nothing."""
        return self.value[0] if self.value else 0


def types(store: Store, selection: Selection) -> list[dict[str, Any]]:
    """Return the profile types that were recorded: type, unit, services, nodes, rows, value, first, last.

    All types when the selection names none. Only of the time that the samples cover.
    """
    return store.rows(*replace(queries.TYPES, typed=bool(selection.type)).bound(selection))


def whole(store: Store, selection: Selection) -> tuple[int, str]:
    """Return (sum, unit) of a selection."""
    row = store.rows(*source(queries.WHOLE, selection).bound(selection))[0]
    return int(row["value"]), str(row["unit"])


def source(query: Query, selection: Selection) -> Query:
    """Return the query for the tables that answer a selection best.

    Before ``SAMPLES_KEPT`` only whole hours are known. A range of hours takes them from the rollup too, but for its
    ends, when neither the query nor the selection asks for what that does not keep (nodes, pods).
    """
    if selection.start < datetime.now(UTC) - SAMPLES_KEPT:
        return queries.hourly(query)
    kept = all(match.label in queries.ROLLUP for match in selection.matches)
    if kept and selection.end - selection.start >= WIDE and query.rolls_up:
        return queries.wide(query)
    return query


def top(store: Store, selection: Selection, n: int = 20, by: str = "function") -> list[dict[str, Any]]:
    """Return the ``n`` largest by self: self, total, self_share and total_share (0..1 of the whole), unit.

    The name stands under ``by``; for services under ``service`` and ``version``. A recursive function counts once in
    its total.

    Args:
        store: where to read.
        selection: what to read.
        n: how many rows.
        by: function, file, line, or an identity label.

    Raises:
        UsageError: it cannot be grouped so.
    """
    if by not in queries.TOP:
        raise UsageError(f"cannot group by '{by}'; use one of {', '.join(queries.TOP)}")
    query = source(queries.TOP[by], selection)
    if by in IDENTITY and by not in query.labels:
        raise UsageError(f"'{by}' is not kept here; group by {', '.join(query.labels)}")
    total, unit = whole(store, selection)
    rows = store.rows(*query.bound(selection, n=n))
    for row in rows:
        row["self_share"] = row["self"] / total if total else 0.0
        row["total_share"] = row["total"] / total if total else 0.0
        row["unit"] = unit
    return rows


def flamegraph(store: Store, selection: Selection, min_share: float = queries.MIN_SHARE) -> Flamegraph:
    """Return a selection's flame graph; nodes under ``min_share`` of the whole stand in ``(other)``, sums are exact."""
    rows = store.rows(*source(queries.FLAMEGRAPH, selection).bound(selection, min_share=min_share))
    return Flamegraph(
        unit=whole(store, selection)[1] or "nanoseconds",
        level=[int(row["level"]) for row in rows],
        value=[int(row["value"]) for row in rows],
        self=[int(row["self"]) for row in rows],
        label=[str(row["label"]) for row in rows],
    )


def latency(store: Store, selection: Selection, n: int = 50) -> list[dict[str, Any]]:
    """Return latencies from merged histograms: probe, operation, service, count, p50_ns, p90_ns, p99_ns, max_ns.

    Whole windows are taken: those that start within the selection.
    """
    return store.rows(*queries.LATENCY.bound(selection, n=n))


def events(store: Store, selection: Selection, n: int = 50) -> list[dict[str, Any]]:
    """Return events counted by kind and service: kind, service, count, failed, last.

    Rows of tables, as of ``top_process``, only where the selection has a condition on the kind.
    """
    by_kind = any(match.label == "kind" for match in selection.matches)
    return store.rows(*(queries.EVENTS_CHOSEN if by_kind else queries.EVENTS).bound(selection, n=n))


def what_exists(store: Store, selection: Selection) -> str:
    """Return one line that says what the store holds instead, for an answer that is empty."""
    services = store.rows(*source(queries.SERVICES, selection).bound(replace(selection, matches=()), n=8))
    if services:
        listed = "; ".join(
            f"{row['service'] or '(no name)'} [{', '.join(sorted(row['types']))}]"
            + (f" {', '.join(sorted(v for v in row['versions'] if v)[:3])}" if any(row["versions"]) else "")
            for row in services
        )
        return f"in that time there is: {listed}"
    ever = datetime(2000, 1, 1, tzinfo=UTC)
    recorded = types(store, Selection(ever, datetime.now(UTC) + timedelta(days=1), type=""))
    if not recorded:
        return "the store holds no profiles yet; is the agent running?"
    first, last = min(row["first"] for row in recorded), max(row["last"] for row in recorded)
    return f"profiles are there from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC; widen --since or --from"
