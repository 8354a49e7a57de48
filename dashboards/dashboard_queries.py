"""The named queries that only dashboards and alert rules ask. Placeholders are those of ``dashboards.queries``."""

from __future__ import annotations

from dashboards.queries import HAPPENED, NODE, P99, PERCENTILES, ROLLUP, TABLES, Query, merged
from streams.schema.messages import IDENTITY

_T = "toStartOfInterval({time}, INTERVAL @step@ SECOND) AS t"
BY_TIME, BY_WINDOW, BY_ARRIVAL = (_T.format(time=column) for column in ("time", "window_start", "append_time"))
SERIES = 12
"""At most this many series in a panel that splits by name; the rest is added up as ``(other)``."""


def largest(column: str, table: str, value: str, more: str = "") -> str:
    """Return SQL that names ``column`` for the largest, ``(other)`` for the rest."""
    return (
        f"if({column} IN (SELECT {column} FROM {table} WHERE @where@{more} GROUP BY {column} "  # noqa: S608
        f"ORDER BY {value} DESC LIMIT {SERIES}), toString({column}), '(other)')"
    )


_CPU = " AND type = 'cpu'"


def _cores(column: str) -> Query:
    series = largest(column, "samples", "sum(value)", _CPU)
    return Query(
        f"cores_by_{column}",
        f"SELECT {BY_TIME}, {series} AS name, sum(value) / 1e9 / @step@ AS cores\n"
        f"FROM samples WHERE @where@{_CPU} GROUP BY t, name ORDER BY t",
        IDENTITY,
    )


CORES_BY_SERVICE = _cores("service")
CORES_BY_NODE = _cores("node")
NODES = Query("nodes", "SELECT uniqExact(node) AS nodes FROM intervals WHERE @where@", NODE)
SERVICES_SEEN = Query("services_seen", "SELECT uniqExact(service) AS services FROM samples WHERE @where@", IDENTITY)
CPU_SECONDS = Query(
    "cpu_seconds", "SELECT sum(value) / 1e9 AS seconds FROM samples WHERE @where@ AND type = 'cpu'", IDENTITY
)
SERVICE_TABLE = Query(
    "service_table",
    "SELECT service, version, namespace, sum(value) / 1e9 AS cpu_seconds,\n"
    "       100 * sum(value) / sum(sum(value)) OVER () AS share, uniqExact(node) AS nodes\n"
    "FROM samples WHERE @where@ AND type = 'cpu' GROUP BY service, version, namespace\n"
    "ORDER BY cpu_seconds DESC LIMIT 200",
    IDENTITY,
)
HOTSPOT_TABLE = Query(
    "hotspot_table",
    "SELECT function, sum(self) AS self_value, sum(total) AS total_value,\n"
    "       100 * self_value / sum(self_value) OVER () AS self_share\n"
    "FROM hotspots_final WHERE @where@ GROUP BY function ORDER BY self_value DESC LIMIT 200",
    ROLLUP,
    "window_start",
    typed=True,
)
HOTSPOT_SHARE = Query(
    "hotspot_share",
    f"SELECT {BY_WINDOW}, {largest('function', 'hotspots_final', 'sum(self)')} AS name,\n"
    "       100 * sum(self) / sum(sum(self)) OVER (PARTITION BY t) AS share\n"
    "FROM hotspots_final WHERE @where@ GROUP BY t, name ORDER BY t",
    ROLLUP,
    "window_start",
    typed=True,
)
PROFILE_VALUE = Query(
    "profile_value",
    f"SELECT {BY_TIME}, toString(version) AS name, sum(value) AS value\n"
    "FROM samples WHERE @where@ GROUP BY t, name ORDER BY t",
    IDENTITY,
    typed=True,
)

_SIDES = " AND version IN ({baseline:String}, {comparison:String})"
_UNVERSIONED = tuple(label for label in ROLLUP if label != "version")
COMPARED = Query(
    "compared",
    "SELECT function,\n"  # noqa: S608
    "       100 * sumIf(self, version = {baseline:String}) / greatest(1, any(whole_l)) AS baseline_share,\n"
    "       100 * sumIf(self, version = {comparison:String}) / greatest(1, any(whole_r)) AS comparison_share,\n"
    "       comparison_share - baseline_share AS points,\n"
    "       multiIf(baseline_share = 0, 'new', comparison_share = 0, 'removed', '') AS note\n"
    "FROM (\n"
    "    SELECT function, version, self, sumIf(self, version = {baseline:String}) OVER () AS whole_l,\n"
    "           sumIf(self, version = {comparison:String}) OVER () AS whole_r\n"
    f"    FROM hotspots_final WHERE @where@{_SIDES}\n"
    ")\nGROUP BY function HAVING baseline_share + comparison_share > 0\nORDER BY abs(points) DESC, function LIMIT 200",
    _UNVERSIONED,
    "window_start",
    typed=True,
)
COMPARED_VALUE = Query(
    "compared_value",
    f"SELECT {BY_TIME}, toString(version) AS name, sum(value) AS value\n"
    f"FROM samples WHERE @where@{_SIDES} GROUP BY t, name ORDER BY t",
    tuple(label for label in IDENTITY if label != "version"),
    typed=True,
)

_INSTANCE = "service, node, pod, container"


def _gauge(kind: str, column: str) -> Query:
    """Return the query of what a snapshot type holds over time: the mean of each instance's scrapes, added up."""
    of = f" AND type = '{kind}'"
    return Query(
        f"{kind}_over_time",
        f"SELECT t, name, sum(mean) AS {column}\nFROM (\n"  # noqa: S608
        f"    SELECT {BY_TIME}, {largest('service', 'samples', 'max(value)', of)} AS name, avg(held) AS mean\n"
        f"    FROM (SELECT time, {_INSTANCE}, sum(value) AS held FROM samples WHERE @where@{of}\n"
        f"          GROUP BY time, {_INSTANCE})\n"
        f"    GROUP BY t, {_INSTANCE}\n"
        ")\nGROUP BY t, name ORDER BY t",
        IDENTITY,
    )


def _growth(kind: str) -> Query:
    """Return the query of what each function's self holds in the first and in the last scrape of each instance."""
    of = f" AND type = '{kind}'"
    return Query(
        f"{kind}_growth",
        "SELECT function, sum(first_value) AS first, sum(last_value) AS last, last - first AS growth\nFROM (\n"  # noqa: S608
        "    SELECT stack_id, sumIf(value, time = first_time) AS first_value,\n"
        "           sumIf(value, time = last_time) AS last_value\n"
        "    FROM (\n"
        "        SELECT stack_id, time, value, min(time) OVER instance AS first_time,\n"
        "               max(time) OVER instance AS last_time\n"
        f"        FROM samples WHERE @where@{of} WINDOW instance AS (PARTITION BY {_INSTANCE})\n"
        "    )\n    GROUP BY stack_id\n"
        ") AS counted\nLEFT JOIN (\n"
        "    SELECT stack_id, toString(any(functions)[-1]) AS function FROM stacks\n"
        f"    WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@{of}) GROUP BY stack_id\n"
        ") AS known USING (stack_id)\n"
        "GROUP BY function HAVING first + last > 0 ORDER BY growth DESC, last DESC, function LIMIT 100",
        IDENTITY,
    )


HEAP, GOROUTINES = _gauge("inuse_space", "bytes"), _gauge("goroutine", "goroutines")
HEAP_GROWTH, GOROUTINE_GROWTH = _growth("inuse_space"), _growth("goroutine")

_RUNQUEUE = " AND probe = 'runqlat'"
_PROBE = " AND probe = {probe:String}"


def percentiles(
    name: str, group: str, columns: str, more: str = "", tail: str = "ORDER BY t", names: str = ""
) -> Query:
    """Return a query over latency windows merged by ``group``."""
    inner = merged(group, more, names)
    return Query(name, f"SELECT {columns}\nFROM (\n{inner}\n)\n{tail}", IDENTITY, "window_start")


LATENCY_OVER_TIME = percentiles(
    "latency_over_time", BY_WINDOW, f"t, {PERCENTILES}, toFloat64(longest_ns) AS max_ns", _PROBE, names="t"
)
LATENCY_P99_BY_SERVICE = percentiles(
    "latency_p99_by_service",
    f"{BY_WINDOW}, {largest('service', 'latency_final', 'sum(count)', _PROBE)} AS name",
    f"t, name, {P99}",
    _PROBE,
    names="t, name",
)
LATENCY_P99_BY_NODE = percentiles(
    "latency_p99_by_node",
    f"{BY_WINDOW}, {largest('node', 'latency_final', 'sum(count)', _PROBE)} AS name",
    f"t, name, {P99}",
    _PROBE,
    names="t, name",
)
LATENCY_P99_BY_OPERATION = percentiles(
    "latency_p99_by_operation",
    f"{BY_WINDOW}, {largest('operation', 'latency_final', 'sum(count)', _PROBE)} AS name",
    f"t, name, {P99}",
    _PROBE,
    names="t, name",
)
LATENCY_TABLE = percentiles(
    "latency_table",
    "probe, operation, service",
    f"probe, operation, service, n AS count, {PERCENTILES}, longest_ns AS max_ns",
    tail="ORDER BY total_ns DESC LIMIT 200",
)
LATENCY_RATE = Query(
    "latency_rate",
    f"SELECT {BY_WINDOW}, toString(probe) AS name, sum(count) / @step@ AS rate\n"
    "FROM latency_final WHERE @where@ GROUP BY t, name ORDER BY t",
    IDENTITY,
    "window_start",
)


def octaves() -> str:
    """Return the columns of a heatmap over rows of (t, octave ``o``, count ``c``)."""
    # Bucket / 16 is the octave: 6 and below are under 2**10 ns, o is [2**(o+3), 2**(o+4)). One column each, so that
    # the panel's rows stand in this order.
    columns = [f"sumIf(c, o = {octave}) AS `< {_nice(2 ** (octave + 4))}`" for octave in range(7, 31)]
    return ",\n       ".join(["sumIf(c, o <= 6) AS `< 1.02 µs`", *columns, "sumIf(c, o > 30) AS `longer`"])


def _nice(ns: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"


LATENCY_HEATMAP = Query(
    "latency_heatmap",
    f"SELECT t, {octaves()}\nFROM (\n"  # noqa: S608
    f"    SELECT {BY_WINDOW}, intDiv(bucket, 16) AS o, sum(n) AS c\n"
    f"    FROM latency_final ARRAY JOIN buckets AS bucket, counts AS n WHERE @where@{_PROBE} GROUP BY t, o\n"
    ")\nGROUP BY t ORDER BY t",
    IDENTITY,
    "window_start",
)

EVENT_RATE = Query(
    "event_rate",
    f"SELECT {BY_TIME}, toString(kind) AS name, count() AS events\n"
    f"FROM events WHERE @where@{HAPPENED} GROUP BY t, name ORDER BY t",
    IDENTITY,
)
_ATTRIBUTES = (
    "arrayStringConcat(arrayMap((k, v) -> k || '=' || v, mapKeys(attributes), mapValues(attributes)), ' ')\n"
    "           AS attributes_text"
)
EVENT_LIST = Query(
    "event_list",
    f"SELECT time, kind, node, namespace, pod, service, comm, pid, detail, result, latency_ns,\n       {_ATTRIBUTES}\n"
    f"FROM events WHERE @where@{HAPPENED} ORDER BY time DESC LIMIT 500",
    IDENTITY,
    more=("kind",),
)
EVENT_TABLES = Query(
    "event_tables",
    f"SELECT time, kind, node, namespace, pod, service, comm, pid, detail,\n       {_ATTRIBUTES}\n"
    f"FROM events WHERE @where@ AND {TABLES} ORDER BY time DESC, kind, node LIMIT 500",
    IDENTITY,
    more=("kind",),
)
EVENT_SERVICES = Query(
    "event_services",
    f"SELECT service, kind, count() AS count FROM events WHERE @where@{HAPPENED} GROUP BY service, kind\n"  # noqa: S608
    "ORDER BY count DESC LIMIT 50",
    IDENTITY,
    more=("kind",),
)
EVENT_COUNT = Query(
    "event_count", "SELECT count() AS count FROM events WHERE @where@ AND kind = {kind:String}", IDENTITY
)
EVENT_FAILED = Query(
    "event_failed",
    "SELECT kind, service, detail, result, count() AS count FROM events WHERE @where@ AND result < 0\n"
    "GROUP BY kind, service, detail, result ORDER BY count DESC LIMIT 100",
    IDENTITY,
    more=("kind",),
)
OOM_KILLS = Query(
    "oom_kills",
    "SELECT time, node, namespace, pod, service, comm, pid, detail FROM events WHERE @where@ AND kind = 'oomkill'\n"
    "ORDER BY time DESC LIMIT 200",
    IDENTITY,
)

# The pipeline's own accounts. FINAL, because a message that was delivered twice stands twice until the next merge.
MESSAGE_RATE = Query(
    "message_rate",
    f"SELECT {BY_ARRIVAL}, toString(schema) AS name, count() / @step@ AS rate\n"
    "FROM intervals FINAL WHERE @where@ GROUP BY t, name ORDER BY t",
    NODE,
    "append_time",
)
ROW_RATE = Query(
    "row_rate",
    f"SELECT {BY_ARRIVAL}, toString(schema) AS name, sum(rows) / @step@ AS rate\n"
    "FROM intervals FINAL WHERE @where@ GROUP BY t, name ORDER BY t",
    NODE,
    "append_time",
)
ARRIVAL_LAG = Query(
    "arrival_lag",
    f"SELECT {BY_ARRIVAL}, toString(node) AS name,\n"
    "       max(greatest(0, toUnixTimestamp64Milli(append_time) - toUnixTimestamp64Milli(end_time))) / 1000 AS lag_s\n"
    "FROM intervals FINAL WHERE @where@ GROUP BY t, name ORDER BY t",
    NODE,
    "append_time",
)
LOST = Query(
    "lost",
    f"SELECT {BY_ARRIVAL}, toString(collector) AS name, sum(lost) AS lost\n"
    "FROM intervals FINAL WHERE @where@ GROUP BY t, name ORDER BY t",
    NODE,
    "append_time",
)
ACCOUNTS = Query(
    "accounts",
    "SELECT cluster, node, collector, sum(messages_p) AS messages, sum(missing_p) AS missing, sum(rows_p) AS rows,\n"
    "       sum(events_p) AS events, sum(lost_p) AS lost, sum(clamped_p) AS clamped,\n"
    "       dateDiff('second', max(last), now('UTC')) AS age_s\n"
    "FROM (\n"
    "    SELECT cluster, node, collector, producer, count() AS messages_p, max(end_time) AS last,\n"
    "           toInt64(max(sequence) - min(sequence) + 1) - toInt64(uniqExact(sequence)) AS missing_p,\n"
    "           sum(rows) AS rows_p, sum(events) AS events_p, sum(lost) AS lost_p, sum(clamped) AS clamped_p\n"
    "    FROM intervals FINAL WHERE @where@ GROUP BY cluster, node, collector, producer\n"
    ")\nGROUP BY cluster, node, collector ORDER BY lost DESC, cluster, node, collector LIMIT 500",
    NODE,
    "append_time",
)
LOST_SHARE = Query(
    "lost_share",
    "SELECT 100 * sum(lost) / greatest(1, sum(events) + sum(lost)) AS lost_percent FROM intervals FINAL WHERE @where@",
    NODE,
    "append_time",
)
FRESHNESS = Query(
    "freshness",
    "SELECT dateDiff('second', max(append_time), now64(3, 'UTC')) AS age_s FROM intervals WHERE @where@\n"
    "HAVING count() > 0",
    NODE,
    "append_time",
)
LATE = Query(
    "late",
    f"SELECT {BY_WINDOW}, countIf(late = 1) AS late_rows, countIf(late = 0) AS rows_in_time\n"
    "FROM hotspots_final WHERE @where@ GROUP BY t ORDER BY t",
    ("cluster",),
    "window_start",
)
SIZES = Query(
    "sizes",
    "SELECT table, sum(rows) AS row_count, sum(bytes_on_disk) AS bytes,\n"
    "       round(bytes / greatest(1, row_count), 2) AS per_row\n"
    "FROM system.parts WHERE active AND database = currentDatabase() GROUP BY table ORDER BY bytes DESC",
    (),
    "",
)
PARTS = Query(
    "partitions",
    "SELECT topic, partition, count() AS messages, max(offset) AS last_offset,\n"
    "       dateDiff('second', max(append_time), now64(3, 'UTC')) AS age_s\n"
    "FROM intervals FINAL WHERE @where@ GROUP BY topic, partition ORDER BY topic, partition",
    NODE,
    "append_time",
)

ALERT_RUN_QUEUE = Query(
    "alert_run_queue",
    "SELECT cluster, node, p99_ns / 1e6 AS p99_ms\n"  # noqa: S608
    f"FROM (SELECT cluster, node, {P99} FROM (\n{merged('cluster, node', _RUNQUEUE)}\n))",
    IDENTITY,
    "window_start",
)
ALERT_LOSSES = Query(
    "alert_losses",
    "SELECT cluster, collector, 100 * sum(lost) / greatest(1, sum(events) + sum(lost)) AS lost_percent\n"
    "FROM intervals FINAL WHERE @where@ GROUP BY cluster, collector",
    NODE,
    "append_time",
)
ALERT_SILENT = Query(
    "alert_silent",
    "SELECT cluster, node, toFloat64(dateDiff('second', max(append_time), now64(3, 'UTC'))) AS silent_s\n"
    "FROM intervals WHERE @where@ GROUP BY cluster, node",
    NODE,
    "append_time",
)
ALERT_NOTHING = Query(
    "alert_nothing", "SELECT toFloat64(count()) AS messages FROM intervals WHERE @where@", NODE, "append_time"
)


def _options(column: str, *tables: str) -> str:
    # Grafana quotes a chosen value by escaping its quotes alone, so a backslash in it would end the string early.
    parts = (f"SELECT DISTINCT {column} FROM {table} WHERE position({column}, char(92)) = 0" for table in tables)  # noqa: S608
    return f"SELECT DISTINCT {column} FROM ({' UNION ALL '.join(parts)}) ORDER BY "  # noqa: S608


def _version(name: str, order: str) -> str:
    versions = _options("version", "samples_1h") + "version"
    return f"SELECT version AS {name} FROM ({versions}) ORDER BY {name} = '', {order}"  # noqa: S608


VARIABLE_SQL = {
    "cluster": _options("cluster", "intervals") + "cluster",
    "node": _options("node", "intervals") + "node",
    "namespace": _options("namespace", "samples_1h", "latency_windows") + "namespace",
    "kind": _options("kind", "events") + "kind",
    "operation": "SELECT DISTINCT operation FROM latency_windows WHERE probe = 'blockio' "
    "AND position(operation, char(92)) = 0 ORDER BY operation LIKE '% write' DESC, operation",
    "service": _options("service", "samples_1h", "latency_windows") + "service",
    "version": _options("version", "samples_1h", "latency_windows") + "version",
    "baseline": _version("baseline", "baseline"),
    "comparison": _version("comparison", "comparison DESC"),
    "type": _options("type", "samples_1h") + "type = 'cpu' DESC, type",
    "probe": _options("probe", "latency_windows") + "probe = 'runqlat' DESC, probe",
}
"""What fills the dashboards' variables; small tables, without a time range."""

VARIABLE_NEEDS = {"operation": "blockio"}
"""The collector without whose rows a variable has no values."""
