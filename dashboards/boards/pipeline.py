"""Pipeline health: is what the other dashboards show complete and fresh?"""

from dashboards import dashboard_queries as q
from dashboards.boards.parts import Board, Panel

BOARD = Board(
    uid="perfstream-pipeline",
    title="perfstream / Pipeline health",
    description="Rates, delays, losses and late rows, from the accounts that every raw message leaves in the store.",
    variables=("cluster", "node"),
    panels=(
        Panel("Data age", "stat", q.FRESHNESS, width=6, height=4, unit="s", warn=60, bad=180,
              description="Time since the newest stored message reached the broker."),
        Panel("Lost on the nodes", "stat", q.LOST_SHARE, width=6, height=4, unit="percent", warn=0.1, bad=1),
        Panel("Nodes reporting", "stat", q.NODES, width=6, height=4),
        Panel("Store", "table", q.SIZES, width=6, height=8, units={"bytes": "bytes"}),
        Panel("Messages a second", "timeseries", q.MESSAGE_RATE, width=9, unit="short"),
        Panel("Rows a second", "timeseries", q.ROW_RATE, width=9, unit="short"),
        Panel("From the node to the broker", "timeseries", q.ARRIVAL_LAG, unit="s",
              description="Append time minus the interval's end, longest of each step: spooling shows here."),
        Panel("Lost on the nodes, by collector", "timeseries", q.LOST, stacked=True,
              description="Full maps, full queues, overflowing spools: counted by the nodes themselves."),
        Panel("Late rows", "timeseries", q.LATE, min_interval="1m",
              description="Rows that arrived after their window had closed; they count, and are marked."),
        Panel("Partitions", "table", q.PARTS, units={"age_s": "s"}),
        Panel("Accounts", "table", q.ACCOUNTS, width=24, height=12, units={"age_s": "s"},
              description="missing: sequence numbers that no stored message has; each should be 0 or still under way."),
    ),
)  # fmt: skip
