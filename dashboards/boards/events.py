"""Node events: what happened, one by one."""

from dashboards import dashboard_queries as q
from dashboards import network_queries as n
from dashboards.boards.parts import Board, Panel
from dashboards.queries import VARIABLES

_QUIET = "nothing has to happen on a quiet node"

BOARD = Board(
    uid="perfstream-events",
    title="perfstream / Node events",
    description="Executions, connections, OOM kills and other events of the nodes; kind chooses among them.",
    variables=("kind", *VARIABLES),
    panels=(
        Panel("OOM kills", "stat", q.EVENT_COUNT, width=6, height=5, constants={"kind": "oomkill"}, bad=1),
        Panel("Executions", "stat", q.EVENT_COUNT, width=6, height=5, constants={"kind": "exec"}),
        Panel("Connections", "stat", q.EVENT_COUNT, width=6, height=5, constants={"kind": "tcpconnect"}),
        Panel("Data age", "stat", q.FRESHNESS, width=6, height=5, unit="s", warn=60, bad=180),
        Panel("Events by kind", "timeseries", n.EVENT_RATE_CHOSEN, width=24, allowed_empty=_QUIET),
        Panel("OOM kills", "table", q.OOM_KILLS, allowed_empty="no process was killed for memory"),
        Panel("Failures", "table", q.EVENT_FAILED, allowed_empty="nothing failed",
              description="Events whose result is a negative error number."),
        Panel("By service", "table", q.EVENT_SERVICES, width=8, height=12, allowed_empty=_QUIET),
        Panel("Latest", "table", q.EVENT_LIST, width=16, height=12, units={"latency_ns": "ns"}, allowed_empty=_QUIET),
        Panel("Tops and snapshots", "table", q.EVENT_TABLES, width=24, height=12,
              allowed_empty="an agent publishes tables only where agent.collectors names them",
              description="How things were, each interval: rows of top_tcp and the like, where agents publish them."),
    ),
)  # fmt: skip
