"""Every named query, once. Commands bind parameters, dashboards put the data source's macros in the same places.

A template holds ``@where@`` for the condition on time, type and identity, and ``@step@`` for the width of a time
bucket in seconds. ``Query.bound`` fills them with bound parameters, ``Query.grafana`` with macros and variables.
Names of tables are unqualified: the session's database is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dashboards.selection import Selection
from streams.schema.messages import IDENTITY

ROLLUP = ("cluster", "namespace", "service", "version")
NODE = ("cluster", "node")
VARIABLES = ("cluster", "node", "namespace", "service", "version")
"""The identity columns that dashboards offer as variables."""

MIN_SHARE = 0.0002
"""Flame graph nodes below this share of the whole are drawn together as ``(other)``: under half a pixel."""


@dataclass(frozen=True, slots=True)
class Query:
    """One named query. ``labels`` are the identity columns of the table that its condition is on.

    ``rolls_up`` is false for one on the samples that needs more of them than the rollup keeps.
    """

    name: str
    sql: str
    labels: tuple[str, ...]
    time: str = "time"
    typed: bool = False
    rolls_up: bool = True
    more: tuple[str, ...] = ()
    """Columns beside the identity that a dashboard offers as variables."""

    def bound(self, selection: Selection, **parameters: object) -> tuple[str, dict[str, object]]:
        """Return (SQL, parameters) for a selection. Raises ``UsageError`` for a label that the table does not keep."""
        where, bound = selection.where(self.labels, self.time, self.typed)
        sql = self.sql.replace("@where@", where).replace("@step@", "{step_s:UInt32}")
        return sql, {**bound, **parameters}

    def grafana(self, **constants: float | str) -> str:
        """Return the SQL of a panel; ``constants`` replace the remaining bound parameters."""
        parts = [f"$__timeFilter({self.time})"] if self.time else []
        if self.typed:
            parts.append("type = ${type:singlequote}")
        parts += [
            f"$__conditionalAll({label} IN (${{{label}:singlequote}}), ${label})"
            for label in (*(each for each in self.labels if each in VARIABLES), *self.more)
        ]
        return self._with(" AND ".join(parts), "$__interval_s", constants)

    def alert(self, minutes: int, **constants: float | str) -> str:
        """Return the SQL of an alert rule: no variables and no macros, the last ``minutes`` of all workloads."""
        where = f"{self.time} >= now() - INTERVAL {int(minutes)} MINUTE"
        return self._with(where, "60", constants)

    def _with(self, where: str, step: str, constants: dict[str, float | str]) -> str:
        sql = self.sql.replace("@where@", where).replace("@step@", step)
        for name, value in constants.items():
            kind = "String" if isinstance(value, str) else "Float64" if "." in str(value) else "UInt32"
            # "${name:singlequote}" brings its own quotes.
            literal = str(value) if kind != "String" or str(value).startswith("$") else f"'{value}'"
            sql = sql.replace(f"{{{name}:{kind}}}", literal)
        return sql


def hourly(query: Query) -> Query:
    """Return a query on the samples for their hourly rollup, which knows neither node nor pod but is kept longer."""
    sql = query.sql.replace("FROM samples ", "FROM samples_1h ")
    return replace(query, name=f"{query.name}_hourly", sql=sql, labels=ROLLUP)


_HOURS = (
    "toStartOfHour(fromUnixTimestamp64Milli({start_ms:Int64} + 3599999, 'UTC'))",
    "toStartOfHour(fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC'))",
)
_KEPT = "cluster, namespace, service, version, type, unit, stack_id, value"


def wide(query: Query, more: str = "") -> Query:
    """Return a query on the samples that reads whole hours from the rollup and only the ends from the samples.

    The sums are the same, for it is filled by the same inserts; a week costs little more than its hours have stacks.
    ``more`` are columns that the query needs besides those that the rollup keeps.
    """
    first, last = _HOURS
    kept = f"{_KEPT}, {more}" if more else _KEPT
    union = (
        f"FROM (SELECT {kept} FROM samples_1h WHERE @where@ AND time >= {first} AND time < {last} "  # noqa: S608
        f"UNION ALL SELECT {kept} FROM samples WHERE @where@ AND (time < {first} OR time >= {last}))"
    )
    sql = query.sql.replace("FROM samples WHERE @where@", union)
    return replace(query, name=f"{query.name}_wide", sql=sql, labels=ROLLUP)


def _bucket_ns(bucket: str) -> str:
    """Return the SQL of a bucket's midpoint in ns; the arithmetic of ``streams.schema.histogram``."""
    shift = f"if({bucket} >= 32, intDiv({bucket}, 16) - 1, 0)"
    low = f"bitShiftLeft(toUInt64({bucket} - {shift} * 16), {shift})"
    return f"({low} + (bitShiftLeft(toUInt64(1), {shift}) - 1) / 2)"


def _quantile(q: float) -> str:
    """Return the SQL of a quantile in ns over the columns ``keys`` (ascending) and ``cumulative``."""
    rank = f"greatest(1, ceil({q} * cumulative[-1]))"
    return _bucket_ns(f"keys[arrayFirstIndex(c -> c >= {rank}, cumulative)]")


# One pass from stacks to drawn nodes. Every prefix of a stack is a node (the empty one is the root, so its value is
# the whole). A node also tells its parent its value if it is large enough to be drawn; what a drawn node has beyond its
# own time and its drawn children is shown as "(other)" below it, so every level still adds up. Arrays sort with the
# prefix first, which is depth-first pre-order.
FLAMEGRAPH_SQL = """\
SELECT toUInt16(length(node_path)) AS level, inclusive AS value, own AS self,
       if(empty(node_path), 'total', node_path[-1]) AS label
FROM
(
    SELECT part.1 AS node_path, part.2 AS inclusive, part.3 AS own
    FROM
    (
        SELECT path, sum(v) AS total, sum(s) AS own_value, sum(c) AS drawn, max(t) AS least
        FROM
        (
            SELECT edge.1 AS path, edge.2 AS v, edge.3 AS s, edge.4 AS c, threshold AS t
            FROM
            (
                SELECT prefix, node_value, node_self, max(node_value) OVER () * {min_share:Float64} AS threshold
                FROM
                (
                    SELECT arraySlice(frames, 1, depth) AS prefix, sum(stack_value) AS node_value,
                           sumIf(stack_value, depth = length(frames)) AS node_self
                    FROM
                    (
                        SELECT if(empty(known.frames), ['[stack not stored]'], known.frames) AS frames, stack_value
                        FROM (SELECT stack_id, sum(value) AS stack_value FROM samples WHERE @where@
                              GROUP BY stack_id) AS counted
                        LEFT JOIN
                        (
                            SELECT stack_id, CAST(any(functions) AS Array(String)) AS frames FROM stacks
                            WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@)
                            GROUP BY stack_id
                        ) AS known USING (stack_id)
                    )
                    ARRAY JOIN range(0, length(frames) + 1) AS depth
                    GROUP BY prefix
                )
            )
            ARRAY JOIN if(empty(prefix),
                [(prefix, node_value, node_self, toInt64(0))],
                [(prefix, node_value, node_self, toInt64(0)),
                 (arrayPopBack(prefix), toInt64(0), toInt64(0), if(node_value >= threshold, node_value, toInt64(0)))]
            ) AS edge
        )
        GROUP BY path
        HAVING total >= least AND total > 0
    )
    ARRAY JOIN [(path, total, own_value),
                (arrayPushBack(path, '(other)'), total - own_value - drawn, total - own_value - drawn)] AS part
    WHERE inclusive > 0
)
ORDER BY node_path"""

FLAMEGRAPH = Query("flamegraph", FLAMEGRAPH_SQL, IDENTITY, typed=True)

# The nodes of two versions, each in percent of its own version's whole, so that a busier one is not wider. Small nodes
# are left out: a level then does not fill the one above it. The panel wants the left value, and adds the right one.
FLAMEGRAPH_DIFF = Query(
    "flamegraph_diff",
    """\
SELECT toUInt16(length(prefix)) AS level, 100 * l / whole_l AS value, 100 * own_l / whole_l AS self,
       100 * r / whole_r AS valueRight, 100 * own_r / whole_r AS selfRight,
       if(empty(prefix), 'total', prefix[-1]) AS label
FROM
(
    SELECT arraySlice(frames, 1, depth) AS prefix, sum(stack_l) AS l, sum(stack_r) AS r,
           sumIf(stack_l, depth = length(frames)) AS own_l, sumIf(stack_r, depth = length(frames)) AS own_r,
           greatest(1, max(l) OVER ()) AS whole_l, greatest(1, max(r) OVER ()) AS whole_r
    FROM
    (
        SELECT if(empty(known.frames), ['[stack not stored]'], known.frames) AS frames, stack_l, stack_r
        FROM (SELECT stack_id, sumIf(value, version = {baseline:String}) AS stack_l,
                     sumIf(value, version = {comparison:String}) AS stack_r
              FROM samples WHERE @where@ AND version IN ({baseline:String}, {comparison:String})
              GROUP BY stack_id) AS counted
        LEFT JOIN
        (
            SELECT stack_id, CAST(any(functions) AS Array(String)) AS frames FROM stacks
            WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@
                               AND version IN ({baseline:String}, {comparison:String}))
            GROUP BY stack_id
        ) AS known USING (stack_id)
    )
    ARRAY JOIN range(0, length(frames) + 1) AS depth
    GROUP BY prefix
)
WHERE l / whole_l + r / whole_r >= {min_share:Float64}
ORDER BY prefix""",
    tuple(label for label in IDENTITY if label != "version"),
    typed=True,
)

_BY_STACK = """\
    SELECT stack_value, arrayMap(x -> toString(x), @parts@) AS names
    FROM (SELECT stack_id, sum(value) AS stack_value FROM samples WHERE @where@ GROUP BY stack_id) AS counted
    LEFT JOIN
    (
        SELECT stack_id, any(functions) AS functions, any(files) AS files, any(lines) AS lines FROM stacks
        WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@) GROUP BY stack_id
    ) AS known USING (stack_id)"""

# A recursive function counts once in its total: distinct names of a stack.
_TOP = """\
SELECT name AS @column@, sumIf(stack_value, name = leaf) AS self, sum(stack_value) AS total
FROM
(
    SELECT stack_value, if(empty(names), '[stack not stored]', names[-1]) AS leaf,
           if(empty(names), ['[stack not stored]'], arrayDistinct(names)) AS distinct_names
    FROM (
@by_stack@
    )
)
ARRAY JOIN distinct_names AS name
GROUP BY name ORDER BY self DESC, total DESC, name
LIMIT {n:UInt32}"""


def _top(column: str, parts: str) -> Query:
    sql = _TOP.replace("@by_stack@", _BY_STACK.replace("@parts@", parts)).replace("@column@", column)
    return Query(f"top_{column}", sql, IDENTITY, typed=True)


TOP = {
    "function": _top("function", "functions"),
    "file": _top("file", "arrayMap((f, p) -> if(empty(p), concat('[no file] ', f), p), functions, files)"),
    "line": _top(
        "line",
        "arrayMap((f, p, l) -> concat(f, if(empty(p), '', concat(' ', p, if(l = 0, '', concat(':', toString(l)))))), "
        "functions, files, lines)",
    ),
    "service": Query(
        "top_service",
        "SELECT service, version, sum(value) AS self, sum(value) AS total FROM samples WHERE @where@ "
        "GROUP BY service, version ORDER BY self DESC, service, version LIMIT {n:UInt32}",
        IDENTITY,
        typed=True,
    ),
    **{
        label: Query(
            f"top_{label}",
            f"SELECT {label}, sum(value) AS self, sum(value) AS total FROM samples WHERE @where@ "  # noqa: S608
            f"GROUP BY {label} ORDER BY self DESC, {label} LIMIT {{n:UInt32}}",
            IDENTITY,
            typed=True,
            rolls_up=label in ROLLUP,
        )
        for label in IDENTITY
        if label != "service"
    },
}

WHOLE = Query("whole", "SELECT sum(value) AS value, any(unit) AS unit FROM samples WHERE @where@", IDENTITY, typed=True)
TYPES = Query(
    "types",
    "SELECT type, any(unit) AS unit, uniqExact(service) AS services, uniqExact(node) AS nodes, count() AS rows, "
    "sum(value) AS value, min(time) AS first, max(time) AS last FROM samples WHERE @where@ GROUP BY type ORDER BY type",
    IDENTITY,
)
SERVICES = Query(
    "services",
    "SELECT service, groupUniqArray(10)(version) AS versions, groupUniqArray(type) AS types FROM samples "
    "WHERE @where@ GROUP BY service ORDER BY service LIMIT {n:UInt32}",
    IDENTITY,
)


def merged(group: str, more: str = "", names: str = "") -> str:
    """Return SQL that merges latency windows by ``group``.

    Its columns: n, longest_ns, total_ns, the coarsest sampling period, keys and cumulative counts.
    """
    return (
        f"    SELECT {group}, sum(count) AS n, max(max_ns) AS longest_ns, sum(sum_ns) AS total_ns,\n"  # noqa: S608
        "           max(period) AS coarsest,\n"
        "           sumMap(buckets, counts) AS histogram, histogram.1 AS keys, arrayCumSum(histogram.2) AS cumulative\n"
        f"    FROM latency_final WHERE @where@{more} GROUP BY {names or group}"
    )


P50, P90, P99 = (f"{_quantile(q)} AS p{q * 100:.0f}_ns" for q in (0.5, 0.9, 0.99))
PERCENTILES = f"{P50}, {P90}, {P99}"

LATENCY = Query(
    "latency",
    f"SELECT probe, operation, service, n AS count, {PERCENTILES}, longest_ns AS max_ns,\n"
    f"       coarsest AS period\nFROM (\n{merged('probe, operation, service')}\n)\n"
    "ORDER BY total_ns DESC, probe, operation, service LIMIT {n:UInt32}",
    (*IDENTITY, "probe", "operation"),
    "window_start",
)
TABLES = "(startsWith(kind, 'top_') OR startsWith(kind, 'snapshot_'))"
"""Rows of the top and snapshot gadgets, which an agent publishes each interval where it is told to: how things were,
not what happened; and there are many of them."""
HAPPENED = f" AND NOT {TABLES}"
EVENTS_CHOSEN = Query(
    "events_chosen",
    "SELECT kind, service, count() AS count, countIf(result != 0) AS failed, max(time) AS last "
    "FROM events WHERE @where@ GROUP BY kind, service ORDER BY count DESC, kind, service LIMIT {n:UInt32}",
    (*IDENTITY, "kind"),
)
EVENTS = replace(
    EVENTS_CHOSEN, name="events", sql=EVENTS_CHOSEN.sql.replace("WHERE @where@", f"WHERE @where@{HAPPENED}")
)
