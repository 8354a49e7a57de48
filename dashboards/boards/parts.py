"""What a dashboard consists of, and how it becomes Grafana's JSON (typed builders of grafana-foundation-sdk)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.builders import heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

from dashboards.dashboard_queries import VARIABLE_SQL
from dashboards.queries import Query

DATASOURCE = "grafana-clickhouse-datasource"
TIME_SERIES, TABLE = 0, 1
FULL_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``kind``: stat, timeseries, table, heatmap or flamegraph; ``unit`` in Grafana's words.

    ``allowed_empty`` says why the panel may show nothing on a healthy system; without it an empty one is a fault.
    ``needs`` is a collector that runs on demand, or seldom has anything to tell: while it has sent nothing, and only
    then, the panel may be empty.
    ``units`` gives columns of a table a unit of their own; ``warn``/``bad`` are thresholds of a stat.
    """

    title: str
    kind: str
    query: Query
    width: int = 12
    height: int = 8
    unit: str = "short"
    description: str = ""
    constants: Mapping[str, float | str] = field(default_factory=dict)
    allowed_empty: str = ""
    needs: str = ""
    stacked: bool = False
    min_interval: str = "10s"
    units: Mapping[str, str] = field(default_factory=dict)
    warn: float | None = None
    bad: float | None = None

    @property
    def format(self) -> int:
        """Return the data source's format: 0 time series, 1 table."""
        return TIME_SERIES if self.kind == "timeseries" else TABLE

    @property
    def sql(self) -> str:
        """Return the SQL with macros and variables."""
        return self.query.grafana(**self.constants)


@dataclass(frozen=True, slots=True)
class Annotation:
    """Moments that are marked in every panel of a board. The query gives ``time``, ``title``, ``text`` and ``tags``."""

    name: str
    query: Query
    color: str
    allowed_empty: str

    @property
    def sql(self) -> str:
        """Return the SQL with macros and variables."""
        return self.query.grafana()


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard: its panels in rows of 24 columns, and which variables it offers."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    variables: tuple[str, ...] = ("cluster", "node", "namespace", "service", "version")
    single: tuple[str, ...] = ()
    """Variables with one value and no "All": type, probe, operation."""
    annotations: tuple[Annotation, ...] = ()


class ClickHouseQuery(Dataquery):  # type: ignore[misc]
    """A target that the plugin's generations 3 and 4 both read."""

    def __init__(self, sql: str, form: int) -> None:
        self.sql = sql
        self.form = form

    def to_json(self) -> dict[str, object]:
        """Return the target."""
        return {
            "refId": "A",
            "datasource": {"type": DATASOURCE, "uid": "${datasource}"},
            "editorType": "sql",
            "rawSql": self.sql,
            "format": self.form,
            "queryType": "timeseries" if self.form == TIME_SERIES else "table",
        }


class _Target(Builder[Dataquery]):  # type: ignore[misc]
    def __init__(self, sql: str, form: int) -> None:
        self._query = ClickHouseQuery(sql, form)

    def build(self) -> Dataquery:
        """Return the target."""
        return self._query


def build(board: Board) -> str:
    """Return a dashboard's JSON, the same bytes for the same code."""
    builder = (
        sdk.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["perfstream"])
        .timezone("utc")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(sdk.DashboardLink("perfstream").type(model.DashboardLinkType.DASHBOARDS).tags(["perfstream"])
              .as_dropdown(True).include_vars(True).keep_time(True))
        .with_variable(sdk.DatasourceVariable("datasource").label("Data source").type(DATASOURCE))
    )  # fmt: skip
    for name in (*board.single, *board.variables):
        builder = builder.with_variable(_variable(name, multi=name not in board.single))
    for mark in board.annotations:
        marked = sdk.AnnotationQuery().name(mark.name).enable(True).icon_color(mark.color)
        marked.datasource(model.DataSourceRef(type_val=DATASOURCE, uid="${datasource}"))
        # The SDK's type for it is older than annotations that are ordinary queries.
        target: Any = _Target(mark.sql, TABLE)
        builder = builder.annotation(marked.target(target))
    for number, (panel, (x, y)) in enumerate(place(board.panels), start=1):
        made = _KINDS[panel.kind](panel)
        made.id(number).title(panel.title).description(_described(panel))
        made.datasource(model.DataSourceRef(type_val=DATASOURCE, uid="${datasource}"))
        made.grid_pos(model.GridPos(h=panel.height, w=panel.width, x=x, y=y)).interval(panel.min_interval)
        made.with_target(_Target(panel.sql, panel.format))
        builder = builder.with_panel(made)
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def place(panels: tuple[Panel, ...]) -> list[tuple[Panel, tuple[int, int]]]:
    """Return each panel with its place (x, y): left to right, a new row when the line is full."""
    placed = []
    x = y = tallest = 0
    for panel in panels:
        if x + panel.width > FULL_WIDTH:
            x, y, tallest = 0, y + tallest, 0
        placed.append((panel, (x, y)))
        x += panel.width
        tallest = max(tallest, panel.height)
    return placed


def _described(panel: Panel) -> str:
    why = panel.allowed_empty or (f"the collector {panel.needs} has sent nothing" if panel.needs else "")
    return f"{panel.description} May be empty: {why}.".strip() if why else panel.description


def _variable(name: str, *, multi: bool) -> sdk.QueryVariable:
    variable = (
        sdk.QueryVariable(name)
        .label(name.capitalize())
        .datasource(model.DataSourceRef(type_val=DATASOURCE, uid="${datasource}"))
        .query(VARIABLE_SQL[name])
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(multi)
        .include_all(multi)
    )
    if multi:
        variable = variable.current(model.VariableOption(text="All", value="$__all", selected=True))
    return variable


def _stat(panel: Panel) -> Any:  # noqa: ANN401 - the SDK's panel builders share no base class
    made = (
        stat.Panel()
        .unit(panel.unit)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )
    steps = [model.Threshold(value=None, color="green")]
    steps += [
        model.Threshold(value=value, color=color)
        for value, color in ((panel.warn, "orange"), (panel.bad, "red"))
        if value is not None
    ]
    return made.thresholds(sdk.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))


def _timeseries(panel: Panel) -> Any:  # noqa: ANN401
    made = (
        timeseries.Panel().unit(panel.unit).min(0).line_width(1).fill_opacity(60 if panel.stacked else 8)
        .show_points(models.VisibilityMode.NEVER).span_nulls(90_000)
        .legend(VizLegendOptions().display_mode(models.LegendDisplayMode.TABLE).placement(models.LegendPlacement.RIGHT)
                .show_legend(True).calcs(["mean", "max"]))
        .tooltip(VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.DESCENDING))
    )  # fmt: skip
    if " AS name" in panel.sql:  # one series for each name, called just that
        made = made.display_name("${__field.labels.name}")
    if panel.stacked:
        made = made.stacking(StackingConfig().mode(models.StackingMode.NORMAL))
    return made


def _table(panel: Panel) -> Any:  # noqa: ANN401
    made = table.Panel().filterable(True)
    for column, unit in panel.units.items():
        made = made.override_by_name(column, [model.DynamicConfigValue(id_val="unit", value=unit)])
    return made


def _heatmap(panel: Panel) -> Any:  # noqa: ANN401, ARG001
    return (
        heatmap.Panel().calculate(False).cell_gap(1).show_legend()
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).exponent(0.5)
               .fill("dark-orange"))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(models.HeatmapCellLayout.AUTO).value("events"))
    )  # fmt: skip


def _flamegraph(panel: Panel) -> Any:  # noqa: ANN401, ARG001
    # The SDK has no builder for it; the panel has no options of its own.
    return sdk.Panel().type("flamegraph")


_KINDS: Mapping[str, Callable[[Panel], Any]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "table": _table,
    "heatmap": _heatmap,
    "flamegraph": _flamegraph,
}
