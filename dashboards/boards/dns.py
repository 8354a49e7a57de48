"""DNS: what is asked, what comes back, and how long that takes."""

from dashboards import dashboard_queries as q
from dashboards import network_queries as n
from dashboards.boards.marks import MARKS
from dashboards.boards.parts import Board, Panel

BOARD = Board(
    uid="perfstream-dns",
    title="perfstream / DNS",
    description="Questions of the nodes' processes and their answers. The collector dns runs where agent.collectors "
    "names it.",
    annotations=MARKS,
    panels=(
        Panel("Questions", "stat", q.EVENT_COUNT, width=6, height=4, constants={"kind": "dns"}),
        Panel("Failed", "stat", n.DNS_SHARE, width=6, height=4, unit="percent", warn=5, bad=20, needs="dns",
              description="Any answer but NOERROR, and none."),
        Panel("Questions a second, by service", "timeseries", n.DNS_RATE, height=8, unit="ops", needs="dns"),
        Panel("Response codes", "timeseries", n.DNS_CODES, stacked=True, needs="dns",
              description="TIMEOUT: no answer within 5 s."),
        Panel("Latency", "heatmap", n.DNS_HEATMAP, width=24, height=10, min_interval="1m", needs="dns",
              description="How many took how long; each row is a factor of two."),
        Panel("Percentiles", "timeseries", n.DNS_LATENCY, unit="ns", needs="dns"),
        Panel("What failed", "table", n.DNS_FAILED, needs="dns", allowed_empty="every question was answered well"),
        Panel("Top names", "table", n.DNS_NAMES, width=24, height=12, needs="dns",
              units={"p50_ns": "ns", "p90_ns": "ns", "p99_ns": "ns"}),
    ),
)  # fmt: skip
