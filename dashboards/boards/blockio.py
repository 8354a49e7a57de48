"""Block I/O: how long devices take, by device and operation."""

from dashboards import dashboard_queries as q
from dashboards import network_queries as n
from dashboards.boards.marks import MARKS
from dashboards.boards.parts import Board, Panel

_BLOCK = {"probe": "blockio"}

BOARD = Board(
    uid="perfstream-blockio",
    title="perfstream / Block I/O",
    description="Latency of block devices from issue to completion, counted in the kernel. Every quantile comes from a "
    "merged histogram and is at most 3.2 % off.",
    single=("operation",),
    annotations=MARKS,
    panels=(
        Panel("Distribution", "heatmap", n.BLOCK_HEATMAP, width=24, height=10, min_interval="1m", needs="blockio",
              constants={"operation": "${operation:singlequote}"},
              description="Of the device and operation chosen above; each row is a factor of two."),
        Panel("p99 by device and operation", "timeseries", q.LATENCY_P99_BY_OPERATION, unit="ns", constants=_BLOCK,
              min_interval="1m", needs="blockio"),
        Panel("Requests a second", "timeseries", n.BLOCK_RATE, unit="iops", min_interval="1m", needs="blockio"),
        Panel("Requests in flight", "timeseries", n.BLOCK_BUSY, min_interval="1m", needs="blockio",
              description="On average: the time that requests took, over the time that passed."),
        Panel("p99 by service", "timeseries", q.LATENCY_P99_BY_SERVICE, unit="ns", constants=_BLOCK,
              min_interval="1m", needs="blockio", description="Write-back is the kernel's own."),
    ),
)  # fmt: skip
