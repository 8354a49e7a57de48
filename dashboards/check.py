"""Runs every query of every dashboard and alert on a store, with macros and variables filled in as Grafana does."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboards import alerts, boards
from dashboards.boards.parts import Board
from dashboards.dashboard_queries import VARIABLE_NEEDS, VARIABLE_SQL
from dashboards.selection import duration
from dashboards.store import Store
from streams.schema.errors import StoreRejectedError

ALL = "$__all"
_POINTS = 200


@dataclass(frozen=True, slots=True)
class Result:
    """What one query gave. ``state``: ok, empty (allowed, with its reason), EMPTY or ERROR (both are faults)."""

    board: str
    query: str
    state: str
    rows: int
    seconds: float
    note: str = ""

    @property
    def fine(self) -> bool:
        """Return whether this is no fault."""
        return self.state in ("ok", "empty")


def expand(sql: str, start: datetime, end: datetime, values: Mapping[str, list[str]], least_step_s: int = 10) -> str:
    """Return SQL with the data source's macros and Grafana's variables filled in.

    Args:
        sql: as the dashboard holds it.
        start: start of the dashboard's time range, UTC.
        end: its end.
        values: for each variable the chosen values; ``["$__all"]`` for "All".
        least_step_s: the panel's minimum interval.
    """
    first, last = (f"toDateTime({int(when.timestamp())})" for when in (start, end))
    step = max(least_step_s, int((end - start).total_seconds() / _POINTS))
    sql = _conditional_all(sql, values)
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 >= {first} AND \1 <= {last}", sql)
    sql = re.sub(r"\$__timeInterval\(([\w.]+)\)", rf"toStartOfInterval(toDateTime(\1), INTERVAL {step} second)", sql)
    sql = sql.replace("$__interval_s", str(step)).replace("$__fromTime", first).replace("$__toTime", last)

    def quoted(found: re.Match[str]) -> str:
        chosen = values.get(found[1])
        if chosen is None:
            return found[0]
        return ",".join("'" + value.replace("'", "\\'") + "'" for value in chosen)  # as Grafana does

    # In one pass: what a value holds is not looked at again.
    return re.sub(r"\$\{(\w+):singlequote\}", quoted, sql)


def _conditional_all(sql: str, values: Mapping[str, list[str]]) -> str:
    """Expand ``$__conditionalAll(condition, $variable)``: 1=1 when All is chosen, else the condition."""
    mark = "$__conditionalAll("
    while (start := sql.find(mark)) >= 0:
        depth, at = 1, start + len(mark)
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[at], 0)
            at += 1
        condition, _, variable = sql[start + len(mark) : at - 1].rpartition(",")
        chosen = values.get(variable.strip().lstrip("$"), [ALL])
        sql = sql[:start] + ("1=1" if chosen == [ALL] else condition) + sql[at:]
    return sql


def run(store: Store, start: datetime, end: datetime) -> list[Result]:
    """Run every variable, panel (with All, and with each variable's first value) and alert rule."""
    results: list[Result] = []
    options: dict[str, list[str]] = {}
    silent = _silent(store, start, end)
    for name, sql in VARIABLE_SQL.items():
        result, rows = _ask(store, "variables", name, sql, silent(VARIABLE_NEEDS.get(name, "")))
        results.append(result)
        options[name] = [str(row[name]) for row in rows]
    for board in boards.ALL:
        results += _board(store, board, start, end, options, silent)
    for rule in alerts.RULES:
        results.append(_ask(store, "alerts", rule.title, rule.sql, rule.may_be_empty)[0])
    return results


def _silent(store: Store, start: datetime, end: datetime) -> Callable[[str], str]:
    """Return what says why the panels of a collector may be empty: that it has sent nothing, else ""."""
    heard = {
        str(row["collector"])
        for row in store.rows(
            "SELECT DISTINCT toString(collector) AS collector FROM intervals WHERE rows > 0 "
            "AND end_time >= fromUnixTimestamp64Milli({start_ms:Int64}) "
            "AND time <= fromUnixTimestamp64Milli({end_ms:Int64})",
            {"start_ms": int(start.timestamp() * 1000), "end_ms": int(end.timestamp() * 1000)},
        )
    }
    return lambda name: f"the collector {name} has sent nothing" if name and name not in heard else ""


def _board(
    store: Store,
    board: Board,
    start: datetime,
    end: datetime,
    options: Mapping[str, list[str]],
    silent: Callable[[str], str],
) -> list[Result]:
    everything = {name: [ALL] for name in board.variables} | {name: options[name][:1] or [""] for name in board.single}
    one = {name: options[name][:1] or [""] for name in (*board.variables, *board.single)}
    asked = [
        (panel.title, panel.sql, int(duration(panel.min_interval).total_seconds()),
         panel.allowed_empty or silent(panel.needs))
        for panel in board.panels
    ] + [(mark.name, mark.sql, 10, mark.allowed_empty) for mark in board.annotations]  # fmt: skip
    results = []
    for title, sql, step, allowed_empty in asked:
        wide, narrow = (expand(sql, start, end, values, step) for values in (everything, one))
        result, _rows = _ask(store, board.title, title, wide, allowed_empty)
        if result.state != "ERROR":
            # A narrow choice may well select nothing; that its SQL runs is what matters.
            chosen, _rows = _ask(store, board.title, title, narrow, "a narrow choice")
            result = chosen if chosen.state == "ERROR" else result
        results.append(result)
    return results


def _ask(store: Store, board: str, query: str, sql: str, allowed_empty: str) -> tuple[Result, list[dict[str, Any]]]:
    began = time.monotonic()
    try:
        rows = store.rows(sql)
    except StoreRejectedError as error:
        return Result(board, query, "ERROR", 0, time.monotonic() - began, str(error)), []
    seconds = time.monotonic() - began
    # An aggregate without rows beneath it is one row of NULL or NaN: as empty as no row.
    filled = [row for row in rows if any(value is not None and value == value for value in row.values())]
    if filled:
        return Result(board, query, "ok", len(filled), seconds), filled
    return Result(board, query, "empty" if allowed_empty else "EMPTY", 0, seconds, allowed_empty), []
