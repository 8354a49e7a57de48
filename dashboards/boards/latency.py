"""Latency: what makes requests wait."""

from dashboards import dashboard_queries as q
from dashboards.boards.marks import MARKS
from dashboards.boards.parts import Board, Panel

_PROBE = {"probe": "${probe:singlequote}"}

BOARD = Board(
    uid="perfstream-latency",
    title="perfstream / Latency",
    description="Latencies counted in the kernel: run queue, block I/O, system calls and others. Every quantile comes "
    "from a merged histogram and is at most 3.2 % off.",
    single=("probe",),
    annotations=MARKS,
    panels=(
        Panel("Distribution", "heatmap", q.LATENCY_HEATMAP, width=24, height=10, constants=_PROBE, min_interval="1m",
              description="How many took how long; each row is a factor of two."),
        Panel("Percentiles", "timeseries", q.LATENCY_OVER_TIME, unit="ns", constants=_PROBE, min_interval="1m"),
        Panel("p99 by service", "timeseries", q.LATENCY_P99_BY_SERVICE, unit="ns", constants=_PROBE, min_interval="1m"),
        Panel("p99 by node", "timeseries", q.LATENCY_P99_BY_NODE, unit="ns", constants=_PROBE, min_interval="1m"),
        Panel("Counted a second, by probe", "timeseries", q.LATENCY_RATE, unit="ops", min_interval="1m"),
        Panel("Every probe, operation and service", "table", q.LATENCY_TABLE, width=24, height=12,
              units={"p50_ns": "ns", "p90_ns": "ns", "p99_ns": "ns", "max_ns": "ns"}),
    ),
)  # fmt: skip
