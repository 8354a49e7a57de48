"""Hotspots: which functions the time is spent in."""

from dashboards import dashboard_queries as q
from dashboards.boards.parts import Board, Panel
from dashboards.queries import FLAMEGRAPH, MIN_SHARE

BOARD = Board(
    uid="perfstream-hotspots",
    title="perfstream / Hotspots",
    description="Flame graph, top functions, and their share over time. Node applies to the flame graph only: windows "
    "are kept for whole services.",
    single=("type",),
    panels=(
        Panel("Flame graph", "flamegraph", FLAMEGRAPH, width=24, height=18, constants={"min_share": MIN_SHARE},
              description="Nodes under 0.02 % of the whole stand together as (other), so every level adds up."),
        Panel("Share of self over time", "timeseries", q.HOTSPOT_SHARE, width=24, height=9, unit="percent",
              stacked=True, min_interval="1m"),
        Panel("Top functions", "table", q.HOTSPOT_TABLE, height=12, units={"self_share": "percent"}),
        Panel("Recorded, by version", "timeseries", q.PROFILE_VALUE, height=12, stacked=True,
              description="In the profile type's own unit."),
    ),
)  # fmt: skip
