"""The dashboards as code: fresh files, sound structure, macros filled in as Grafana does."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml

from dashboards import alerts, boards, output
from dashboards.boards import parts
from dashboards.boards.parts import Board, Panel, place
from dashboards.check import ALL, expand
from dashboards.dashboard_commands import dashboards
from dashboards.dashboard_queries import EVENT_RATE, VARIABLE_SQL
from dashboards.queries import VARIABLES, Query

START, END = datetime(2026, 1, 31, 11, tzinfo=UTC), datetime(2026, 1, 31, 12, tzinfo=UTC)
BY_UID = {board.uid: board for board in boards.ALL}


def panels(uid):
    return {panel["title"]: panel for panel in json.loads(parts.build(BY_UID[uid]))["panels"]}


def test_the_committed_files_are_what_the_code_says():
    assert output.stale() == [], "run 'perfstream dashboards build'"


def test_stale_missing_and_forgotten_files_are_found_and_put_right(tmp_path):
    from click.testing import CliRunner

    def call(*arguments):
        return CliRunner().invoke(dashboards, [*arguments, "--output", str(tmp_path)])

    assert call("build").exit_code == 0
    assert call("build", "--check").output == f"{len(boards.ALL) + 1} files are up to date\n"
    fleet = tmp_path / "perfstream-fleet.json"
    good = fleet.read_text()
    fleet.write_text(good.replace("CPU by node", "CPU by nose"))
    (tmp_path / "alerts.yaml").unlink()
    (tmp_path / "perfstream-removed.json").write_text("{}")
    (tmp_path / "mine.json").write_text("{}")
    checked = call("build", "--check")
    assert checked.exit_code == 1
    assert str(checked.exception).startswith(
        "not up to date: alerts.yaml, perfstream-fleet.json, perfstream-removed.json; run"
    )
    assert call("build").exit_code == 0
    assert call("build", "--check").exit_code == 0
    assert fleet.read_text() == good
    assert (tmp_path / "mine.json").exists()


@pytest.mark.parametrize("uid", BY_UID)
def test_structure(uid):
    text = parts.build(BY_UID[uid])
    assert output.problems(text) == []
    assert text == parts.build(BY_UID[uid])
    board = json.loads(text)
    assert board["timezone"] == "utc"
    for panel in board["panels"]:
        (target,) = panel["targets"]
        assert (target["format"], target["queryType"]) in ((0, "timeseries"), (1, "table"))
        assert panel["title"]


def broken(change):
    board = json.loads(parts.build(BY_UID["perfstream-fleet"]))
    change(board)
    return output.problems(json.dumps(board))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda b: b.pop("uid"), "'uid' is missing"),
        (lambda b: b["templating"]["list"].pop(0), "there is no data source variable"),
        (lambda b: b["panels"][0].update(id=2), "panel ids are missing or not unique"),
        (lambda b: b["panels"][0]["gridPos"].update(w=25), "panel 'Nodes reporting' does not fit the grid"),
        (lambda b: b["panels"][1]["gridPos"].update(x=0), "panel 'Services profiled' overlaps 'Nodes reporting'"),
        (lambda b: b["panels"][0].update(targets=[]), "panel 'Nodes reporting' asks nothing"),
        (lambda b: b["panels"][0]["targets"][0]["datasource"].update(uid="x"),
         "panel 'Nodes reporting' names a data source instead of using the variable"),
        (lambda b: b["panels"][0]["targets"][0].pop("editorType"),
         "panel 'Nodes reporting': its target lacks editorType"),
        (lambda b: b["panels"][0]["targets"][0].update(rawSql="SELECT $nope"),
         "panel 'Nodes reporting' uses unknown variables: nope"),
        (lambda b: b["panels"][0]["targets"][0].update(rawSql="SELECT {n:UInt32}"),
         "panel 'Nodes reporting': a parameter was not filled in"),
    ],
)  # fmt: skip
def test_structural_mistakes_are_found(change, problem):
    assert problem in broken(change)


def test_every_dashboard_offers_the_identity_as_variables():
    assert VARIABLES == ("cluster", "node", "namespace", "service", "version")
    for board in boards.ALL:
        document = json.loads(parts.build(board))
        names = [variable["name"] for variable in document["templating"]["list"]]
        assert names[0] == "datasource"
        fewer = {"perfstream-pipeline": ("cluster", "node"), "perfstream-comparison": VARIABLES[:-1]}
        wanted = fewer.get(board.uid, VARIABLES)
        assert tuple(names[-len(wanted) :]) == wanted
        for variable in document["templating"]["list"][1:]:
            assert variable["query"] == VARIABLE_SQL[variable["name"]]
            assert variable["multi"] is variable["includeAll"] is (variable["name"] not in board.single)


def test_the_flame_graph_panel_gets_the_frame_that_it_needs():
    panel = panels("perfstream-hotspots")["Flame graph"]
    assert (panel["type"], panel["targets"][0]["format"]) == ("flamegraph", 1)
    # The columns' order: older versions of the panel take the second one for the value.
    head = panel["targets"][0]["rawSql"].split("FROM")[0]
    assert [head.index(f"AS {name}") for name in ("level", "value", "self", "label")] == sorted(
        head.index(f"AS {name}") for name in ("level", "value", "self", "label")
    )


def test_series_are_called_by_their_name_alone():
    defaults = panels("perfstream-fleet")["CPU by service"]["fieldConfig"]["defaults"]
    assert defaults["displayName"] == "${__field.labels.name}"
    assert "displayName" not in panels("perfstream-latency")["Percentiles"]["fieldConfig"]["defaults"]


def test_panels_are_placed_in_rows_without_overlap():
    panel = Panel("p", "stat", EVENT_RATE, width=10, height=3)
    places = place((panel, panel, replace(panel, height=5), panel, panel))
    assert [at for _panel, at in places] == [(0, 0), (10, 0), (0, 3), (10, 3), (0, 8)]


def values(**chosen):
    return {name: [ALL] for name in VARIABLES} | chosen


@pytest.mark.parametrize(
    ("sql", "chosen", "expanded"),
    [
        ("$__timeFilter(time)", {}, "time >= toDateTime(1769857200) AND time <= toDateTime(1769860800)"),
        ("$__timeInterval(t.time)", {}, "toStartOfInterval(toDateTime(t.time), INTERVAL 18 second)"),
        ("x / $__interval_s", {}, "x / 18"),
        ("$__fromTime, $__toTime", {}, "toDateTime(1769857200), toDateTime(1769860800)"),
        ("$__conditionalAll(node IN (${node:singlequote}), $node)", {}, "1=1"),
        ("$__conditionalAll(node IN (${node:singlequote}), $node)", {"node": ["a", "b'c"]},
         "node IN ('a','b\\'c')"),
        ("$__conditionalAll(f(g(node), 1) = 2, $node) OR x", {"node": ["a"]}, "f(g(node), 1) = 2 OR x"),
        ("$__conditionalAll(a IN (${node:singlequote}), $node) AND $__conditionalAll(b = 1, $service)",
         {"node": ["n"]}, "a IN ('n') AND 1=1"),
        ("type = ${type:singlequote}", {"type": ["cpu"]}, "type = 'cpu'"),
    ],
)  # fmt: skip
def test_macros_and_variables(sql, chosen, expanded):
    assert expand(sql, START, END, values(**chosen)) == expanded


def test_the_step_is_at_least_the_panels_interval():
    assert expand("$__interval_s", START, END, {}, 60) == "60"
    assert expand("$__interval_s", datetime(2026, 1, 1, tzinfo=UTC), END, {}, 60) == str((30 * 24 + 12) * 3600 // 200)


@pytest.mark.parametrize("board", boards.ALL, ids=lambda board: board.uid)
def test_no_macro_or_variable_is_left_after_expansion(board: Board):
    chosen = values() | {name: ["x"] for name in board.single}
    for panel in board.panels:
        for given in (chosen, {name: ["x"] for name in chosen}):
            assert "$" not in expand(panel.sql, START, END, given), panel.title


def test_constants_become_literals_and_variables_bring_their_own_quotes():
    query = Query("q", "SELECT {a:UInt32}, {b:Float64}, {c:String}, {d:String} FROM t WHERE @where@", ("node",))
    sql = query.grafana(a=3, b=0.5, c="x", d="${probe:singlequote}")
    assert sql.startswith("SELECT 3, 0.5, 'x', ${probe:singlequote} FROM t WHERE $__timeFilter(time) AND ")


def test_alert_rules_are_whole_and_use_no_macro():
    document = yaml.safe_load(alerts.build())
    (group,) = document["groups"]
    assert (document["apiVersion"], group["folder"]) == (1, "perfstream")
    assert len({rule["uid"] for rule in group["rules"]}) == len(group["rules"]) == len(alerts.RULES)
    for rule in group["rules"]:
        refs = [part["refId"] for part in rule["data"]]
        assert rule["condition"] in refs
        query, *expressions = rule["data"]
        assert query["datasourceUid"] == alerts.DATASOURCE_UID
        assert "$" not in query["model"]["rawSql"]
        assert "{" not in query["model"]["rawSql"]
        for part in expressions:
            assert part["datasourceUid"] == "__expr__"
            assert part["model"]["expression"] in refs
        assert rule["annotations"]["summary"]
