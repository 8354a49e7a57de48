"""Fleet overview: what all machines spend their time on."""

from dashboards import dashboard_queries as q
from dashboards.boards.marks import MARKS
from dashboards.boards.parts import Board, Panel

BOARD = Board(
    uid="perfstream-fleet",
    title="perfstream / Fleet overview",
    description="CPU time of the fleet by service and node, and what waits for it.",
    annotations=MARKS,
    panels=(
        Panel("Nodes reporting", "stat", q.NODES, width=6, height=4),
        Panel("Services profiled", "stat", q.SERVICES_SEEN, width=6, height=4),
        Panel("CPU time sampled", "stat", q.CPU_SECONDS, width=6, height=4, unit="s"),
        Panel("Data age", "stat", q.FRESHNESS, width=6, height=4, unit="s", warn=60, bad=180),
        Panel("CPU by service", "timeseries", q.CORES_BY_SERVICE, height=9, unit="none", stacked=True,
              description="Cores in use, from samples; the 12 largest, the rest as (other)."),
        Panel("CPU by node", "timeseries", q.CORES_BY_NODE, height=9, unit="none", stacked=True),
        Panel("Run queue wait, p99 by node", "timeseries", q.LATENCY_P99_BY_NODE, unit="ns", min_interval="1m",
              constants={"probe": "runqlat"}, description="How long runnable threads waited for a CPU."),
        Panel("Events", "timeseries", q.EVENT_RATE, description="Exec, connect, OOM kill and others, by kind.",
              allowed_empty="nothing has to happen on a quiet node"),
        Panel("Services", "table", q.SERVICE_TABLE, width=24, height=10,
              units={"cpu_seconds": "s", "share": "percent"}),
    ),
)  # fmt: skip
