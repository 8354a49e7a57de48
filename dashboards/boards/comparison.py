"""Two versions of a service side by side: what changed between them."""

from dashboards import dashboard_queries as q
from dashboards.boards.parts import Board, Panel
from dashboards.queries import FLAMEGRAPH_DIFF, MIN_SHARE

_SIDES = {"baseline": "${baseline:singlequote}", "comparison": "${comparison:singlequote}"}

BOARD = Board(
    uid="perfstream-comparison",
    title="perfstream / Version comparison",
    description="Each side in percent of its own whole, so that load makes no difference. Whether a difference is more "
    "than chance says 'perfstream profile compare'.",
    variables=("cluster", "node", "namespace", "service"),
    single=("type", "baseline", "comparison"),
    panels=(
        Panel("Difference", "flamegraph", FLAMEGRAPH_DIFF, width=24, height=18, unit="percent",
              constants={**_SIDES, "min_share": MIN_SHARE},
              description="Red grew from baseline to comparison, green shrank. A bar is as wide as both together."),
        Panel("Functions that changed most", "table", q.COMPARED, height=12, constants=_SIDES,
              units={"baseline_share": "percent", "comparison_share": "percent", "points": "percent"},
              description="Self, in percent of the version's whole, of whole services: node does not apply."),
        Panel("Recorded, by version", "timeseries", q.COMPARED_VALUE, height=12, constants=_SIDES,
              description="In the profile type's own unit."),
    ),
)  # fmt: skip
