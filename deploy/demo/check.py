"""Holds what was measured against what is known: the workload's own figures, and the pipeline's accounting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.demo.workload import BURN_SHARES, CONNECTS, EXECS, REFUSED

GO_SHARE = 0.75
GO_PERIOD_NS = 10_000_000
"""Go samples at 100 Hz (``runtime/pprof``)."""
GO_SIGMAS, GO_LEAST = 4, 100
"""How far chance may lead a share away, in standard deviations of a binomial one; fewer samples say nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: what was expected, what was measured, and whether they agree."""

    what: str
    expected: str
    measured: str
    agrees: bool


def _one(client: Any, sql: str, **parameters: object) -> list[Any]:  # noqa: ANN401 - clickhouse-connect is untyped
    rows = client.query(sql, parameters=parameters).result_rows
    return list(rows[0]) if rows else []


def shares(client: Any, service: str, kind: str = "cpu") -> dict[str, float]:  # noqa: ANN401
    """Return each function's self time as a share of the service's time of a profile type."""
    rows = client.query(
        "SELECT function, sum(self) AS own FROM hotspots_final WHERE type = {kind:String} "
        "AND service = {service:String} GROUP BY function",
        parameters={"kind": kind, "service": service},
    ).result_rows
    total = sum(own for _function, own in rows) or 1
    return {function: own / total for function, own in rows}


def workload(client: Any, truth: Mapping[str, Mapping[str, float]], *, kernel: bool, go: bool) -> list[Finding]:  # noqa: ANN401
    """Compare with the workload. ``kernel`` is false where eBPF cannot run, ``go`` where there is no Go."""
    findings = []
    if kernel:
        measured = shares(client, "demo-burn")
        for function, share in BURN_SHARES.items():
            got = measured.get(function, 0.0)
            findings.append(
                Finding(f"{function} of demo-burn's CPU", f"{share:.0%} ± 3", f"{got:.1%}", abs(got - share) <= 0.03)
            )
        (cpu_s,) = _one(
            client, "SELECT sum(value) / 1e9 FROM samples WHERE type = 'cpu' AND service = {s:String}", s="demo-burn"
        )
        known = truth["burn"]["cpu_s"]
        findings.append(
            Finding(
                "CPU seconds of demo-burn", f"{known:.1f} ± 5 %", f"{cpu_s:.1f}", abs(cpu_s - known) <= 0.05 * known
            )
        )
        findings += _events(client)
        findings += _latencies(client, truth)
    if go:
        findings.append(_go(client))
    return findings


def _go(client: Any) -> Finding:  # noqa: ANN401
    """Compare the share of goHot in the time of goHot and goWarm, as far as so many samples can tell."""
    # Totals: the compiler may inline what both call, or not.
    rows = client.query(
        "SELECT function, sum(total) FROM hotspots_final WHERE type = 'process_cpu' AND service = 'demo-go' "
        "GROUP BY function"
    ).result_rows
    hot, warm = (sum(v for k, v in rows if k.endswith(name)) for name in ("goHot", "goWarm"))
    samples = (hot + warm) / GO_PERIOD_NS
    got = hot / (hot + warm) if hot + warm else 0.0
    off = GO_SIGMAS * math.sqrt(GO_SHARE * (1 - GO_SHARE) / max(samples, 1))
    return Finding(
        "goHot of goHot and goWarm",
        f"{GO_SHARE:.0%} ± {off * 100:.1f} ({samples:.0f} samples)",
        f"{got:.1%}",
        samples >= GO_LEAST and abs(got - GO_SHARE) <= off,
    )


def _events(client: Any) -> list[Finding]:  # noqa: ANN401
    (execs,) = _one(client, "SELECT count() FROM events WHERE kind = 'exec' AND detail LIKE '%/demo-nothing'")
    made, refused = _one(
        client,
        "SELECT count(), countIf(result = -111) FROM events WHERE kind = 'tcpconnect' AND service = 'demo-connect'",
    )
    return [
        Finding("execs of demo-nothing", str(EXECS), str(execs), execs == EXECS),
        Finding("connects of demo-connect", str(CONNECTS), str(made), made == CONNECTS),
        Finding("of these refused", str(REFUSED), str(refused), refused == REFUSED),
    ]


def _latencies(client: Any, truth: Mapping[str, Mapping[str, float]]) -> list[Finding]:  # noqa: ANN401
    naps = sum(int(part["naps"]) for name, part in truth.items() if name.startswith("contend"))
    waits, longest_ms = _one(
        client,
        "SELECT sum(count), max(max_ns) / 1e6 FROM latency_final WHERE probe = 'runqlat' AND service = 'demo-contend'",
    )
    (sleeps,) = _one(
        client,
        "SELECT sum(count) FROM latency_final WHERE probe = 'syscall' AND service = 'demo-contend' "
        "AND operation = 'clock_nanosleep'",
    )
    writes = int(truth["write"]["writes"])
    (block,) = _one(
        client,
        "SELECT sum(count) FROM latency_final WHERE probe = 'blockio' AND positionCaseInsensitive(operation, 'w') > 0",
    )
    return [
        Finding("nanosleep calls of demo-contend", str(naps), str(sleeps), sleeps == naps),
        Finding("its waits in the run queue", f"at least {naps}", str(waits), waits >= naps),
        Finding("its longest wait", "over 1 ms", f"{longest_ms:.1f} ms", longest_ms > 1),
        Finding("block writes", f"at least {writes}", str(block), block >= writes),
    ]


def accounting(client: Any, published: int) -> list[Finding]:  # noqa: ANN401
    """Compare what the raw topics hold with what the store holds.

    Args:
        client: a clickhouse-connect client on the stack's database.
        published: how many messages the raw topics hold (the sum of their end offsets).
    """
    messages, lost, repeated = _one(
        client, "SELECT count(), sum(lost), count() - uniqExact(producer, collector, sequence) FROM intervals FINAL"
    )
    findings = [
        Finding("messages published = stored", str(published), str(messages), messages == published),
        Finding("messages stored twice", "0", str(repeated), repeated == 0),
    ]
    for schema, table, what in (("profile", "samples", "profile rows"), ("event", "events", "event rows")):
        (rows,) = _one(client, "SELECT sum(rows) FROM intervals FINAL WHERE schema = {s:String}", s=schema)
        (stored,) = _one(client, f"SELECT count() FROM {table}")  # noqa: S608 - one of the two names above
        findings.append(Finding(f"{what} published = stored", str(rows), str(stored), rows == stored))
    (raw,) = _one(client, "SELECT sum(value) FROM samples")
    (windows,) = _one(client, "SELECT sum(self) FROM hotspots_final")
    findings.append(Finding("values: samples = hotspot windows", str(raw), str(windows), raw == windows))
    (counted,) = _one(client, "SELECT sum(events) FROM intervals FINAL WHERE schema = 'latency'")
    (merged,) = _one(client, "SELECT sum(count) FROM latency_final")
    findings.append(Finding("latencies counted = in windows", str(counted), str(merged), counted == merged))
    findings.append(Finding("lost on the node (counted)", "shown", str(lost), agrees=True))
    return findings


def dashboards(dsn: str) -> list[Finding]:
    """Run every panel, variable and alert query of the dashboards on what was stored."""
    from dashboards.check import run
    from dashboards.store import connect

    end = datetime.now(UTC)
    results = run(connect(dsn), end - timedelta(minutes=15), end)
    wrong = [f"{result.board}: {result.query}: {result.state}" for result in results if not result.fine]
    measured = f"{len(results) - len(wrong)}" + (f" ({'; '.join(wrong[:3])})" if wrong else "")
    return [Finding("dashboard and alert queries that answer", str(len(results)), measured, not wrong)]
