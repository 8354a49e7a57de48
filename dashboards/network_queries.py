"""The queries of the DNS, TCP and block I/O dashboards, and the moments that all latency dashboards mark.

Single events are few enough to keep, so quantiles over them are exact; latencies counted in the kernel are merged.
"""

from __future__ import annotations

from dataclasses import replace

from dashboards.dashboard_queries import BY_TIME, BY_WINDOW, EVENT_RATE, LATENCY_HEATMAP, LATENCY_RATE, largest, octaves
from dashboards.queries import Query
from streams.schema.messages import IDENTITY

_QUANTILES = ", ".join(f"quantileExact({q})(latency_ns) AS p{q * 100:.0f}_ns" for q in (0.5, 0.9, 0.99))
_REASON = (
    "multiIf(result = 0, 'established', result = -111, 'refused', result = -110, 'timed out', result = -113, "
    "'no route', result = -125, 'given up', concat('error ', toString(-result)))"
)
# Calls of the resolver that asked nobody are rows, too; they have neither a server nor an answer.
_DNS = " AND kind = 'dns' AND attributes['type'] != 'getaddrinfo'"


def _over_time(name: str, series: str, value: str, more: str) -> Query:
    return Query(
        name,
        f"SELECT {BY_TIME}, {series} AS name, {value}\nFROM events WHERE @where@{more} GROUP BY t, name ORDER BY t",
        IDENTITY,
    )


def _quantiles(name: str, more: str) -> Query:
    return Query(
        name,
        f"SELECT {BY_TIME}, {_QUANTILES}, toFloat64(max(latency_ns)) AS max_ns\n"
        f"FROM events WHERE @where@{more} GROUP BY t ORDER BY t",
        IDENTITY,
    )


def _heatmap(name: str, more: str) -> Query:
    return Query(
        name,
        f"SELECT t, {octaves()}\nFROM (\n"  # noqa: S608
        f"    SELECT {BY_TIME}, toInt32(floor(log2(greatest(latency_ns, 1)))) - 3 AS o, count() AS c\n"
        f"    FROM events WHERE @where@{more} GROUP BY t, o\n"
        ")\nGROUP BY t ORDER BY t",
        IDENTITY,
    )


DNS_SHARE = Query(
    "dns_failed_share",
    f"SELECT 100 * countIf(result != 0) / count() AS failed_percent FROM events WHERE @where@{_DNS} HAVING count() > 0",  # noqa: S608
    IDENTITY,
)
DNS_RATE = _over_time(
    "dns_rate", largest("service", "events", "count()", _DNS), "count() / @step@ AS rate", _DNS
)  # fmt: skip
DNS_CODES = _over_time("dns_codes", "attributes['rcode']", "count() AS questions", _DNS)
DNS_LATENCY = _quantiles("dns_latency", _DNS)
DNS_HEATMAP = _heatmap("dns_heatmap", _DNS)
DNS_NAMES = Query(
    "dns_names",
    "SELECT attributes['name'] AS domain, attributes['type'] AS type, count() AS count,\n"
    f"       countIf(result != 0) AS failed, {_QUANTILES}, uniqExact(service) AS services\n"
    f"FROM events WHERE @where@{_DNS} GROUP BY domain, type ORDER BY count DESC, domain, type LIMIT 200",
    IDENTITY,
)
DNS_FAILED = Query(
    "dns_failed",
    "SELECT attributes['name'] AS domain, attributes['type'] AS type, attributes['rcode'] AS code, service,\n"
    "       attributes['server'] AS server, count() AS count, max(time) AS last\n"
    f"FROM events WHERE @where@{_DNS} AND result != 0 GROUP BY domain, type, code, service, server\n"
    "ORDER BY count DESC, domain, type LIMIT 200",
    IDENTITY,
)

_CONNECT = " AND kind = 'tcpconnect'"
CONNECTS = _over_time("connects", _REASON, "count() / @step@ AS rate", _CONNECT)
CONNECTS_FAILED = Query(
    "connects_failed",
    f"SELECT countIf(result != 0) AS failed FROM events WHERE @where@{_CONNECT}",  # noqa: S608
    IDENTITY,
)
CONNECT_LATENCY = _quantiles("connect_latency", f"{_CONNECT} AND result = 0")
CONNECT_FAILURES = Query(
    "connect_failures",
    f"SELECT service, detail AS peer, {_REASON} AS outcome, count() AS count, max(time) AS last\n"
    f"FROM events WHERE @where@{_CONNECT} AND result != 0 GROUP BY service, peer, outcome\n"
    "ORDER BY count DESC, service, peer LIMIT 200",
    IDENTITY,
)
_RETRANSMIT = " AND kind = 'tcpretrans'"
RETRANSMITS = _over_time(
    "retransmits", largest("service", "events", "count()", _RETRANSMIT), "count() AS segments", _RETRANSMIT
)
RETRANSMITS_BY_PEER = Query(
    "retransmits_by_peer",
    "SELECT service, detail AS peer, attributes['state'] AS state, count() AS count, max(time) AS last\n"
    f"FROM events WHERE @where@{_RETRANSMIT} GROUP BY service, peer, state ORDER BY count DESC, peer LIMIT 200",
    IDENTITY,
)
DROPS = _over_time("drops", "attributes['reason']", "count() AS packets", " AND kind = 'tcpdrop'")
DROPS_TABLE = Query(
    "drops_table",
    "SELECT attributes['reason'] AS reason, service, attributes['destination'] AS destination,\n"
    "       attributes['flags'] AS flags, count() AS count, max(time) AS last\n"
    "FROM events WHERE @where@ AND kind = 'tcpdrop' GROUP BY reason, service, destination, flags\n"
    "ORDER BY count DESC, reason, destination LIMIT 200",
    IDENTITY,
)
TRAFFIC = Query(
    "tcp_traffic",
    "SELECT service, count() AS connections, sum(toUInt64OrZero(attributes['bytes_sent'])) AS sent,\n"
    "       sum(toUInt64OrZero(attributes['bytes_received'])) AS received, countIf(result < 0) AS failed,\n"
    "       sum(toUInt64OrZero(attributes['retransmits'])) AS retransmits, avg(latency_ns) AS mean_ns\n"
    "FROM events WHERE @where@ AND kind = 'tcp' AND attributes['operation'] = 'close' GROUP BY service\n"
    "ORDER BY sent + received DESC, service LIMIT 200",
    IDENTITY,
)

_BLOCK = " AND probe = 'blockio'"
BLOCK_HEATMAP = replace(
    LATENCY_HEATMAP,
    name="block_heatmap",
    sql=LATENCY_HEATMAP.sql.replace("probe = {probe:String}", "probe = 'blockio' AND operation = {operation:String}"),
)
BLOCK_RATE = replace(
    LATENCY_RATE,
    name="block_rate",
    sql=LATENCY_RATE.sql.replace("toString(probe)", "toString(operation)").replace("@where@", f"@where@{_BLOCK}"),
)
BLOCK_BUSY = Query(
    "block_busy",
    f"SELECT {BY_WINDOW}, toString(operation) AS name, sum(sum_ns) / 1e9 / @step@ AS in_flight\n"
    f"FROM latency_final WHERE @where@{_BLOCK} GROUP BY t, name ORDER BY t",
    IDENTITY,
    "window_start",
)

OOM_MARKS = Query(
    "oom_marks",
    "SELECT time, 'OOM kill' AS title, concat(service, ' on ', node, ': ', detail) AS text, 'oomkill' AS tags\n"
    "FROM events WHERE @where@ AND kind = 'oomkill' ORDER BY time DESC LIMIT 200",
    IDENTITY,
)
# One mark for each service and step: a service that nobody answers would otherwise be all there is to see.
FAILED_CONNECT_MARKS = Query(
    "failed_connect_marks",
    "SELECT t AS time, 'failed connects' AS title, concat(name, ': ', toString(failed), ' ', outcome) AS text,\n"  # noqa: S608
    "       'tcpconnect' AS tags\n"
    "FROM (\n"
    f"    SELECT {BY_TIME}, toString(service) AS name, {_REASON} AS outcome, count() AS failed\n"
    f"    FROM events WHERE @where@{_CONNECT} AND result != 0 GROUP BY t, name, outcome\n"
    ")\nORDER BY failed DESC, t LIMIT 200",
    IDENTITY,
)
EVENT_RATE_CHOSEN = replace(EVENT_RATE, name="event_rate_chosen", more=("kind",))
