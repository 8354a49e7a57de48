"""What changed between two selections: sums by function and cluster from the store, the statistics from ``streams``.

Clusters are node x time, from the samples. Where both sides ran on the same nodes, what is peculiar to a node is on
both, and hours are as good: long ranges then read the hourly rollup but for their ends, which has the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from dashboards import queries
from dashboards.queries import Query
from dashboards.reading import SAMPLES_KEPT
from dashboards.selection import Selection
from dashboards.store import Store
from streams import regression
from streams.regression import Side
from streams.schema.messages import IDENTITY

GROUPS = 128
"""Clusters are put into so many groups at most: the spread over groups of whole clusters is as good, and bounded."""
MAX_FUNCTIONS = 50_000
FEW_NODES = 5
ONE_CELL_S = 2**31
MANY_HOURS = 20
"""So many hours of data on each side are clusters enough."""
ALIKE = 0.1
"""Nodes are the same when at most so much of the load would have to move for both sides to be spread alike."""
VERDICTS = ("regressed", "new", "improved", "removed", "no finding", "too few samples")
REGRESSIONS = VERDICTS[:2]

_CELLS = """\
SELECT @cell@ AS cell,
       sum(value) AS whole, @samples@ AS samples, any(unit) AS unit, @nodes@ AS nodes
FROM samples WHERE @where@ GROUP BY cell"""

# Sums of squares and of products with the cell's whole are all that the statistics need of the cells, so one row a
# function leaves the store. Names are hashed once a stack: what is grouped a cell is numbers.
_FUNCTIONS = """\
SELECT name AS function, self, total, self_squares, total_squares, self_cross, total_cross
FROM
(
    SELECT id, sum(own) AS self, sum(with_called) AS total,
           sum(pow(toFloat64(own), 2)) AS self_squares, sum(pow(toFloat64(with_called), 2)) AS total_squares,
           sum(toFloat64(own) * {wholes:Array(Float64)}[cell + 1]) AS self_cross,
           sum(toFloat64(with_called) * {wholes:Array(Float64)}[cell + 1]) AS total_cross
    FROM
    (
        SELECT cell, id, sumIf(stack_value, id = leaf) AS own, sum(stack_value) AS with_called
        FROM
        (
            SELECT cell, stack_value, if(empty(known.ids), cityHash64('[stack not stored]'), known.ids[-1]) AS leaf,
                   if(empty(known.ids), [cityHash64('[stack not stored]')], known.distinct_ids) AS names
            FROM
            (
                SELECT @cell@ AS cell, stack_id, sum(value) AS stack_value
                FROM samples WHERE @where@ GROUP BY cell, stack_id
            ) AS counted
            LEFT JOIN
            (
                SELECT stack_id, arrayMap(name -> cityHash64(name), any(functions)) AS ids,
                       arrayDistinct(ids) AS distinct_ids
                FROM stacks WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@) GROUP BY stack_id
            ) AS known USING (stack_id)
        )
        ARRAY JOIN names AS id
        GROUP BY cell, id
    )
    GROUP BY id
) AS sums
INNER JOIN
(
    SELECT cityHash64(called) AS id, any(called) AS name
    FROM
    (
        SELECT toString(arrayJoin(functions)) AS called FROM stacks
        WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@)
        UNION ALL SELECT '[stack not stored]' AS called
    )
    GROUP BY id
) AS named USING (id)
ORDER BY total DESC, function LIMIT {n:UInt32}"""

_CELL = "toUInt32(cityHash64(@who@, intDiv(toUnixTimestamp(time), {cell_s:UInt32})) % {groups:UInt32})"


_HOUR = "toUnixTimestamp(toStartOfHour(time)) AS hour"
# Up to GROUPS hours of one workload share no cell.
_HOUR_CELL = "toUInt32((cityHash64(cluster, namespace) + intDiv(hour, 3600)) % {groups:UInt32})"


def _queries(name: str, sql: str) -> dict[str, Query]:
    """Return a query by where it reads. The rollup knows neither nodes nor how many samples a sum was."""

    def query(cell: str, samples: str = "toFloat64(0)", nodes: str = "emptyArrayString()") -> Query:
        text = sql.replace("@cell@", cell).replace("@samples@", samples).replace("@nodes@", nodes)
        return Query(name, text, IDENTITY, typed=True)

    by_node = _CELL.replace("@who@", "cluster, node")
    return {
        "samples": query(by_node, "sum(if(period > 0, value / period, 0))", "groupUniqArray(256)(toString(node))"),
        "hours": queries.wide(query(_HOUR_CELL), _HOUR),
        "rollup": queries.hourly(query(_CELL.replace("@who@", "cluster, namespace"))),
    }


CELLS = _queries("compare_cells", _CELLS)
FUNCTIONS = _queries("compare_functions", _FUNCTIONS)
SEEN = Query(
    "compare_seen",
    "SELECT cluster, node, sum(value) AS load, sum(if(period > 0, value / period, 0)) AS samples "
    "FROM samples WHERE @where@ GROUP BY cluster, node",
    IDENTITY,
    typed=True,
)
LOAD = Query(
    "load", "SELECT sum(count) AS events FROM latency_final WHERE @where@", (*IDENTITY, "probe", "operation"),
    "window_start",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found: rows, the largest findings first, and what a reader should know about them."""

    rows: list[dict[str, Any]]
    notes: list[str]

    @property
    def regressed(self) -> bool:
        """Return whether a function got a greater share, or came to be, beyond what chance explains."""
        return any(row["verdict"] in REGRESSIONS for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Cells:
    whole: dict[int, int]
    samples: float
    unit: str
    nodes: frozenset[str]
    cell_s: int


def compare(
    store: Store,
    sides: tuple[Selection, Selection],
    *,
    rate: float = 0.05,
    min_points: float = 0.1,
    loads: tuple[float, float] | None = None,
) -> Comparison:
    """Return how each function's shares differ between two selections (baseline, comparison).

    Args:
        store: where to read.
        sides: the two selections.
        rate: the false discovery rate: of what is called a finding, so much may be chance.
        min_points: percentage points below which a difference is no finding, however certain.
        loads: how much work (requests, ...) each side did; for the cost of a unit of it.
    """
    where, cells = clusters(store, sides)
    notes = []
    if where == "samples" and cells[0].nodes and cells[1].nodes and not cells[0].nodes & cells[1].nodes:
        if min(len(one.nodes) for one in cells) >= FEW_NODES:
            cells = [_cells(store, side, ONE_CELL_S, where) for side in sides]
        else:
            notes.append(
                f"the sides ran on different nodes ({len(cells[0].nodes)} and {len(cells[1].nodes)}): "
                "a difference between nodes looks like one between versions"
            )
    if sum(max(0, len(one.whole) - 1) for one in cells) == 0 and all(one.whole for one in cells):
        notes.append("one interval on each side shows no spread, so nothing is tested; take a longer time")
    with ThreadPoolExecutor(2) as both:  # waiting for the store, which answers both at once
        read = list(both.map(lambda side, one: _functions(store, side, one, where), sides, cells))
    names = list(read[0] | read[1])
    found = {
        kind: regression.compare(_side(names, read[0], cells[0], kind), _side(names, read[1], cells[1], kind))
        for kind in ("self", "total")
    }
    tested = np.concatenate([found[kind].tested for kind in found])
    q = np.ones(len(tested))
    q[tested] = regression.adjusted(np.concatenate([found[kind].p for kind in found])[tested])
    rows = []
    for i, name in enumerate(names):
        sums = [one.get(name, _NONE) for one in read]
        row: dict[str, Any] = {"function": name, "verdict": "", "by": ""}
        for at, kind in enumerate(("self", "total")):
            one = found[kind]
            row |= {
                f"baseline_{kind}": int(sums[0][kind]),
                f"comparison_{kind}": int(sums[1][kind]),
                f"baseline_{kind}_share": float(one.baseline[i]),
                f"comparison_{kind}_share": float(one.comparison[i]),
                f"{kind}_points": float(100 * one.difference[i]),
                f"{kind}_points_low": float(100 * one.low[i]),
                f"{kind}_points_high": float(100 * one.high[i]),
                f"{kind}_p": float(one.p[i]),
                f"{kind}_q": float(q[i + at * len(names)]),
            }
            for side, load in zip(("baseline", "comparison"), loads or (0.0, 0.0), strict=True):
                row[f"{side}_{kind}_per_unit"] = row[f"{side}_{kind}"] / load if load else None
            costs = row[f"baseline_{kind}_per_unit"], row[f"comparison_{kind}_per_unit"]
            row[f"{kind}_per_unit_change"] = costs[1] - costs[0] if loads else None
        row["unit"] = next((one.unit for one in cells if one.unit), "")
        row["verdict"], row["by"] = _verdict(row, rate, min_points, bool(found["total"].tested[i]))
        rows.append(row)
    rows.sort(key=_order)
    return Comparison(rows, notes)


def load(store: Store, sides: tuple[Selection, Selection], probe: str, operation: str = "") -> tuple[float, float]:
    """Return how many events of a probe (and operation) each side had: the load that a cost is divided by."""
    found = []
    for side in sides:
        wanted = side.also(probe=probe, operation=operation or None)
        found.append(float(store.rows(*LOAD.bound(wanted))[0]["events"]))
    return found[0], found[1]


_NONE = dict.fromkeys(
    ("self", "total", "self_squares", "self_cross", "total_squares", "total_cross"), 0
)  # fmt: skip


def _cell_s(side: Selection) -> int:
    """Return how long a cluster is: sixty in a range, but a minute at least; ten in a range of minutes."""
    length = (side.end - side.start).total_seconds()
    step, parts = (60, 60) if length >= 600 else (10, 10)
    return max(step, math.ceil(length / parts / step) * step)


def clusters(store: Store, sides: tuple[Selection, Selection]) -> tuple[str, list[_Cells]]:
    """Return where to read (a key of ``CELLS``), and each side's clusters."""
    with ThreadPoolExecutor(2) as both:  # waiting for the store, which answers both at once
        if any(side.start < datetime.now(UTC) - SAMPLES_KEPT for side in sides):
            return "rollup", list(both.map(lambda side: _cells(store, side, _cell_s(side), "rollup"), sides))
        if all(_long(side) for side in sides):
            seen = list(both.map(lambda side: store.rows(*SEEN.bound(side)), sides))
            if moved(*({(row["cluster"], row["node"]): row["load"] for row in one} for one in seen)) <= ALIKE:
                cells = list(both.map(lambda side: _cells(store, side, 3600, "hours"), sides))
                if min(len(one.whole) for one in cells) >= MANY_HOURS:
                    taken = (sum(float(row["samples"]) for row in one) for one in seen)
                    return "hours", [replace(one, samples=n) for one, n in zip(cells, taken, strict=True)]
        return "samples", list(both.map(lambda side: _cells(store, side, _cell_s(side), "samples"), sides))


def moved(before: Mapping[Any, float], after: Mapping[Any, float]) -> float:
    """Return how much of the load (0..1) lies elsewhere: half the sum of the differences of shares; 1 without any."""
    wholes = sum(before.values()), sum(after.values())
    if min(wholes) <= 0:
        return 1.0
    return sum(abs(before.get(key, 0) / wholes[0] - after.get(key, 0) / wholes[1]) for key in {*before, *after}) / 2


def _long(side: Selection) -> bool:
    """Return whether a range may have enough hours, and asks for nothing that the rollup does not keep."""
    kept = all(match.label in queries.ROLLUP for match in side.matches)
    return kept and side.end - side.start >= timedelta(hours=MANY_HOURS)


def _cells(store: Store, side: Selection, cell_s: int, where: str) -> _Cells:
    rows = store.rows(*CELLS[where].bound(side, cell_s=cell_s, groups=GROUPS))
    return _Cells(
        {int(row["cell"]): int(row["whole"]) for row in rows},
        sum(float(row["samples"]) for row in rows),
        str(rows[0]["unit"]) if rows else "",
        frozenset(node for row in rows for node in row["nodes"]),
        cell_s,
    )


def _functions(store: Store, side: Selection, cells: _Cells, where: str) -> dict[str, dict[str, Any]]:
    wholes = [float(cells.whole.get(cell, 0)) for cell in range(GROUPS)]
    bound = FUNCTIONS[where].bound(side, cell_s=cells.cell_s, groups=GROUPS, wholes=wholes, n=MAX_FUNCTIONS)
    return {str(row["function"]): row for row in store.rows(*bound)}


def _side(names: list[str], rows: dict[str, dict[str, Any]], cells: _Cells, kind: str) -> Side:
    keys = (kind, f"{kind}_squares", f"{kind}_cross")
    sums = np.array([[rows.get(name, _NONE)[key] for key in keys] for name in names], np.float64).reshape(-1, 3)
    wholes = np.array(list(cells.whole.values()), np.float64)
    return Side(
        sums[:, 0], sums[:, 1], sums[:, 2],
        float(wholes.sum()), float((wholes**2).sum()), len(wholes), cells.samples,
    )  # fmt: skip


def _verdict(row: dict[str, Any], rate: float, min_points: float, tested: bool) -> tuple[str, str]:
    """Return the verdict, and of which share it is."""
    for kind in ("self", "total"):
        if row[f"{kind}_q"] <= rate and abs(row[f"{kind}_points"]) >= min_points:
            if not row["baseline_total"]:
                return "new", kind
            if not row["comparison_total"]:
                return "removed", kind
            return ("regressed" if row[f"{kind}_points"] > 0 else "improved"), kind
    return ("no finding" if tested else "too few samples"), ""


def _order(row: dict[str, Any]) -> tuple[object, ...]:
    kind = row["by"] or "self"
    return not row["by"], kind != "self", -abs(row[f"{kind}_points"]), -abs(row["total_points"]), row["function"]
