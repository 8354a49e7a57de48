"""The dashboards on a real store with known rows, and publishing them.

No Grafana runs here: there is none in a package registry. The dashboards' queries run on the real store with macros
filled in as the data source documents them; ``push`` is tested with the real client against a server that answers as
Grafana's documented HTTP API does (folders, dashboards, 401, 403, 412, 5xx) and keeps the requests.
"""

import base64
import json
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dashboards import boards, check
from dashboards.boards import parts
from dashboards.boards.parts import Board, Panel
from dashboards.dashboard_queries import EVENT_COUNT, SERIES
from dashboards.queries import FLAMEGRAPH, VARIABLES, Query
from dashboards.store import connect
from deploy import cli
from deploy.broker import free_port
from tests.integration import known_rows
from tests.integration.known_rows import MS

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def known(store):
    name = "dashboards_known"
    store.post(f"CREATE DATABASE {name}")
    filled = known_rows.fill(store, name)
    known_rows.fill_network(store, filled)
    yield filled
    store.post(f"DROP DATABASE {name} SYNC")


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["perfstream", "dashboards", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


def test_check_passes_on_known_rows(run, known):
    code, out, err = run("check", "--dsn", known.dsn, "--format", "json")
    rows = json.loads(out)
    assert (code, err) == (0, f"all {len(rows)} queries answer\n")
    asked = sum(len(board.panels) + len(board.annotations) for board in boards.ALL)
    assert len(rows) == asked + len(check.VARIABLE_SQL) + len(check.alerts.RULES)
    assert {row["state"] for row in rows} == {"ok"}


def test_a_broken_query_and_an_empty_panel_fail(run, known, monkeypatch):
    def with_panel(sql, **more):
        panel = Panel("New panel", "table", Query("new", sql, ("node",), "append_time"), **more)
        monkeypatch.setattr(boards, "ALL", (Board("perfstream-new", "New", "", (panel,)),))
        code, out, err = run("check", "--dsn", known.dsn, "--format", "json")
        return code, next(row for row in json.loads(out) if row["query"] == "New panel"), err

    code, row, err = with_panel("SELECT nope FROM intervals WHERE @where@")
    assert (code, row["state"]) == (1, "ERROR")
    assert "nope" in row["note"]
    assert err.startswith("perfstream: 1 of ")
    assert err.endswith(" queries fail or come back empty, first: New panel\n")
    code, row, _err = with_panel("SELECT 1 FROM intervals WHERE @where@ AND node = 'none'")
    assert (code, row["state"]) == (1, "EMPTY")
    code, row, _err = with_panel("SELECT max(NULL) AS a, nan AS b FROM intervals WHERE @where@")
    assert (code, row["state"]) == (1, "EMPTY")
    code, row, _err = with_panel("SELECT 1 FROM intervals WHERE @where@ AND node = 'none'", allowed_empty="quiet")
    assert (code, row["state"], row["note"]) == (0, "empty", "quiet")
    # Who needs a collector may be empty while that has sent nothing, and no longer.
    nothing = "SELECT 1 FROM intervals WHERE @where@ AND node = 'none'"
    code, row, _err = with_panel(nothing, needs="dns")
    assert (code, row["state"], row["note"]) == (0, "empty", "the collector dns has sent nothing")
    code, row, _err = with_panel(nothing, needs="exec")
    assert (code, row["state"]) == (1, "EMPTY")
    # Right with "All", broken as soon as a node is chosen.
    code, row, _err = with_panel("SELECT throwIf(${node:singlequote} != '$__all') AS x FROM intervals WHERE @where@")
    assert (code, row["state"]) == (1, "ERROR")


def test_check_fails_on_an_empty_store_and_without_one(run, store, unique, database):
    from runtime.settings import ClickHouseSettings
    from sinks.migrate import migrate

    code, _out, err = run("check", "--dsn", f"{store.dsn}/{database}")
    assert code == 1
    migrate(ClickHouseSettings(dsn=f"{store.dsn}/{database}"))
    code, out, err = run("check", "--dsn", f"{store.dsn}/{database}")
    assert code == 1
    assert "EMPTY" in out
    assert "ERROR" not in out
    assert err.startswith("perfstream: ")
    code, _out, err = run("check", "--dsn", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert err.count("\n") == 1


@pytest.fixture(scope="module")
def ask(known):
    """Run a panel's SQL as Grafana would, with chosen variables: ``ask(query, constants..., node=[...])``."""
    opened = connect(known.dsn)

    def call(query, step=60, chosen=None, **constants):
        values = {name: ["$__all"] for name in VARIABLES} | {"type": ["cpu"], "probe": ["runqlat"]} | (chosen or {})
        return opened.rows(check.expand(query.grafana(**constants), known.start, known.end, values, step))

    return call


def test_the_flame_graph_panel_adds_up(ask, known):
    rows = ask(FLAMEGRAPH, min_share=0.0002)
    assert list(rows[0]) == ["level", "value", "self", "label"]
    assert (rows[0]["level"], rows[0]["value"], rows[0]["label"]) == (0, known.sum(), "total")
    assert sum(row["self"] for row in rows) == known.sum()
    assert sum(row["value"] for row in rows if row["level"] == 1) == known.sum()
    chosen = {"service": ["shop", "batch"], "version": ["v1.1"], "node": ["node-a"]}
    rows = ask(FLAMEGRAPH, chosen=chosen, min_share=0.0002)
    assert rows[0]["value"] == known.sum(service="shop", version="v1.1", node="node-a")


def panel(uid, title):
    board = next(board for board in boards.ALL if board.uid == uid)
    return next(panel for panel in board.panels if panel.title == title)


def shown(ask, uid, title, **chosen):
    one = panel(uid, title)
    return ask(one.query, chosen={name: [value] for name, value in chosen.items()}, **one.constants)


def test_hotspots_show_the_latest_states_and_their_share(ask, known):
    rows = shown(ask, "perfstream-hotspots", "Top functions")
    top = {row["function"]: (row["self_value"], row["total_value"]) for row in rows}
    wanted = {name: sums for name, sums in known.top().items() if not name.startswith("tiny_")}
    tiny = 2 * MS * len(known_rows.TINY)
    assert top == wanted | {"(other)": (tiny, tiny)}
    assert sum(row["self_share"] for row in rows) == pytest.approx(100)
    over_time = shown(ask, "perfstream-hotspots", "Share of self over time")
    for minute in {row["t"] for row in over_time}:
        assert sum(row["share"] for row in over_time if row["t"] == minute) == pytest.approx(100)
    assert len({row["t"] for row in over_time}) == 5
    only = shown(ask, "perfstream-hotspots", "Top functions", service="batch")
    assert sum(row["self_value"] for row in only) == known.sum(service="batch")


def test_two_versions_stand_side_by_side_each_in_percent_of_its_whole(ask, known):
    sides = {"service": "shop", "baseline": "v1.0", "comparison": "v1.1"}
    rows = shown(ask, "perfstream-comparison", "Difference", **sides)
    assert (rows[0]["label"], rows[0]["value"], rows[0]["valueRight"]) == ("total", 100, 100)
    wholes = [known.sum(service="shop", version=version) for version in ("v1.0", "v1.1")]
    tops = [known.top(service="shop", version=version) for version in ("v1.0", "v1.1")]
    for row in rows:
        if row["level"] == 2 and row["label"] in ("work", "walk"):
            for side, top, whole in zip(("value", "valueRight"), tops, wholes, strict=True):
                assert row[side] == pytest.approx(100 * top.get(row["label"], (0, 0))[1] / whole)
    changed = {
        row["function"]: row for row in shown(ask, "perfstream-comparison", "Functions that changed most", **sides)
    }
    for name in ("alpha", "beta", "walk"):
        shares = [100 * top.get(name, (0, 0))[0] / whole for top, whole in zip(tops, wholes, strict=True)]
        assert [changed[name]["baseline_share"], changed[name]["comparison_share"]] == pytest.approx(shares)
    assert (changed["alpha"]["note"], changed["walk"]["note"], changed["beta"]["note"]) == ("removed", "new", "")


def test_what_is_held_is_added_up_over_instances_and_growth_is_from_first_to_last(ask, known):
    rows = shown(ask, "perfstream-memory", "Heap in use, by service")
    minutes = sorted(row["bytes"] for row in rows)
    wanted = sum(10_007 + more * 25 + 50_021 for more in (7, 11))  # the mean of 0, 10, ... 50 s
    assert minutes[0] == pytest.approx(wanted)
    assert minutes[-1] == pytest.approx(wanted + (7 + 11) * 240)
    (alpha, beta) = shown(ask, "perfstream-memory", "Heap growth, by function")
    assert alpha == {"function": "alpha", "first": 2 * 10_007, "last": 2 * 10_007 + 18 * 290, "growth": 18 * 290}
    assert beta == {"function": "beta", "first": 2 * 50_021, "last": 2 * 50_021, "growth": 0}
    (alpha,) = shown(ask, "perfstream-memory", "Goroutine growth, by function", node="node-a")
    assert alpha == {"function": "alpha", "first": 97, "last": 97 + 290, "growth": 290}


def test_cores_by_service_are_cpu_seconds_a_second(ask, known):
    rows = shown(ask, "perfstream-fleet", "CPU by service")
    assert sum(row["cores"] * 60 for row in rows) == pytest.approx(known.sum() / 1e9)
    assert {row["name"] for row in rows} == {"shop", "batch", known_rows.ODD}
    (stat,) = shown(ask, "perfstream-fleet", "CPU time sampled", service="batch")
    assert stat["seconds"] == known.sum(service="batch") / 1e9


def test_beyond_the_largest_series_the_rest_is_other(ask, store, database):
    from runtime.settings import ClickHouseSettings
    from sinks.migrate import migrate

    migrate(ClickHouseSettings(dsn=f"{store.dsn}/{database}"))
    start = known_rows.start_of_data()
    store.post(
        f"INSERT INTO samples (time, service, type, unit, value) SELECT toDateTime({int(start.timestamp())}), "
        f"'s' || toString(number), 'cpu', 'nanoseconds', (number + 1) * 1000000000 FROM numbers({SERIES + 3})",
        database=database,
    )
    rows = connect(f"{store.dsn}/{database}").rows(
        check.expand(panel("perfstream-fleet", "CPU by service").sql, start, start.replace(second=59), {}, 10)
    )
    assert len(rows) == SERIES + 1
    assert sum(row["cores"] * 10 for row in rows) == sum(range(1, SERIES + 4))
    assert next(row["cores"] for row in rows if row["name"] == "(other)") * 10 == 1 + 2 + 3


def test_the_heatmap_holds_every_latency_in_its_octave(ask, known):
    for probe in ("runqlat", "syscall", "blockio"):
        rows = ask(panel("perfstream-latency", "Distribution").query, probe=probe)
        values = [v for (name, _op, _service), them in known.latencies.items() if name == probe for v in them]
        assert len(rows) == 5
        sums = {column: sum(row[column] for row in rows) for column in rows[0] if column != "t"}
        assert sum(sums.values()) == len(values)
        assert sums["< 1.02 µs"] == sum(value < 1024 for value in values)
        assert sums["< 32.8 µs"] == sum(16384 <= value < 32768 for value in values)
        assert sums["< 2.1 ms"] == sum(2**20 <= value < 2**21 for value in values)


def test_percentiles_and_events(ask, known):
    (row,) = [
        r for r in shown(ask, "perfstream-latency", "Every probe, operation and service") if r["operation"] == "read"
    ]
    assert row["count"] == len(known.latencies["syscall", "read", "shop"])
    assert ask(EVENT_COUNT, kind="exec") == [{"count": 13}]
    assert ask(EVENT_COUNT, kind="exec", chosen={"service": ["none"]}) == [{"count": 0}]
    failed = shown(ask, "perfstream-events", "Failures")
    assert {(row["kind"], row["result"], row["count"]) for row in failed} == {
        ("tcpconnect", -111, 3), ("dns", -110, 3), ("tcp", -104, 2)
    }  # fmt: skip
    (only,) = shown(ask, "perfstream-events", "Failures", kind="dns")
    assert (only["kind"], only["count"]) == ("dns", 3)
    latest = shown(ask, "perfstream-events", "Latest", kind="tcpretrans", service="net")
    assert [row["attributes_text"] for row in latest] == ["local=10.0.0.1:40000 state=ESTABLISHED"] * 11


def test_rows_of_tables_are_shown_apart_from_what_happened(ask):
    tables = set(known_rows.TABLES)
    for uid, title, column in (
        ("perfstream-events", "Events by kind", "name"), ("perfstream-events", "By service", "kind"),
        ("perfstream-events", "Latest", "kind"), ("perfstream-fleet", "Events", "name"),
    ):  # fmt: skip
        kinds = {row[column] for row in shown(ask, uid, title)}
        assert "exec" in kinds
        assert not kinds & tables
    rows = shown(ask, "perfstream-events", "Tops and snapshots")
    assert Counter(row["kind"] for row in rows) == known_rows.TABLES
    assert {row["attributes_text"] for row in rows} == {"sent_bytes=1009"}
    rows = shown(ask, "perfstream-events", "Tops and snapshots", kind="top_tcp")
    assert Counter(row["kind"] for row in rows) == {"top_tcp": 17}


def test_questions_by_name_code_and_latency(ask):
    def dns(title, **chosen):
        return shown(ask, "perfstream-dns", title, **chosen)

    codes = Counter()
    for row in dns("Response codes"):
        codes[row["name"]] += row["questions"]
    assert codes == {"NOERROR": 31, "NXDOMAIN": 13, "TIMEOUT": 3}  # the call of localhost is no question
    assert dns("Failed") == [{"failed_percent": pytest.approx(100 * 16 / 47)}]
    top = [(row["domain"], row["type"], row["count"], row["failed"], row["p50_ns"]) for row in dns("Top names")]
    assert top == [
        ("good.example", "A", 31, 0, 1_100_000), ("none.example", "A", 13, 13, 700_000),
        ("slow.example", "AAAA", 3, 3, 5_000_000_000),
    ]  # fmt: skip
    failed = {(row["domain"], row["code"], row["server"], row["count"]) for row in dns("What failed")}
    assert failed == {("none.example", "NXDOMAIN", "10.0.0.53:53", 13), ("slow.example", "TIMEOUT", "10.0.0.53:53", 3)}
    heat = Counter()
    for row in dns("Latency"):
        heat.update({name: count for name, count in row.items() if name != "t" and count})
    assert heat == {"< 1.05 ms": 13, "< 2.1 ms": 31, "< 8.59 s": 3}
    assert sum(row["rate"] * 60 for row in dns("Questions a second, by service")) == pytest.approx(47)
    assert max(row["max_ns"] for row in dns("Percentiles")) == 5e9
    assert dns("Top names", service="shop") == []


def test_tcp_by_outcome_reason_and_round_trip(ask, known):
    def tcp(title, **chosen):
        return shown(ask, "perfstream-tcp", title, **chosen)

    def sums(title, value):
        found = Counter()
        for row in tcp(title):
            found[row["name"]] += row[value]
        return found

    assert tcp("Failed connects") == [{"failed": 3}]
    rates = sums("Connects a second, by outcome", "rate")
    assert {name: rate * 60 for name, rate in rates.items()} == pytest.approx({"refused": 3, "established": 4})
    assert sums("Segments sent again, by service", "segments") == {"net": 11}
    assert sums("Packets dropped, by reason", "packets") == {"NO_SOCKET": 5, "TCP_CSUM": 2}
    (peer,) = tcp("Sent again, by peer")
    assert (peer["peer"], peer["state"], peer["count"]) == ("10.0.0.2:443", "ESTABLISHED", 11)
    dropped = [(row["reason"], row["destination"], row["count"]) for row in tcp("Dropped, by destination")]
    assert dropped == [("NO_SOCKET", "10.0.0.1:81", 5), ("TCP_CSUM", "10.0.0.1:80", 2)]
    (failures,) = tcp("Connects that failed")
    assert (failures["outcome"], failures["count"]) == ("refused", 3)
    (traffic,) = tcp("Bytes of connections that ended")
    assert traffic["sent"] == 17 * 1009 + 2 * 101
    assert (traffic["received"], traffic["failed"], traffic["retransmits"]) == (17 * 13 + 2 * 7, 2, 17)
    trips = [v for (probe, *_), values in known.latencies.items() if probe == "tcprtt" for v in values]
    heat = tcp("Round trips")
    assert sum(count for row in heat for name, count in row.items() if name != "t") == len(trips)
    assert {row["name"] for row in tcp("Round trips, p99 by service's port")} == {"to :443", "from :80"}


def test_block_io_by_device_and_operation(ask, known):
    def io(title, **chosen):
        return shown(ask, "perfstream-blockio", title, **chosen)

    for operation in ("vda read", "vda write"):
        values = known.latencies["blockio", operation, "batch"]
        heat = io("Distribution", operation=operation)
        assert sum(count for row in heat for name, count in row.items() if name != "t") == len(values)
        rates = [row["rate"] for row in io("Requests a second") if row["name"] == operation]
        assert sum(rates) * 60 == pytest.approx(len(values))
        busy = [row["in_flight"] for row in io("Requests in flight") if row["name"] == operation]
        assert sum(busy) * 60 == pytest.approx(sum(values) / 1e9)
    assert {row["name"] for row in io("p99 by device and operation")} == {"vda read", "vda write"}


def test_latency_dashboards_mark_kills_and_failed_connects(ask):
    marked = {board.uid for board in boards.ALL if board.annotations}
    assert marked == {f"perfstream-{name}" for name in ("fleet", "latency", "blockio", "tcp", "dns")}
    kills, connects = next(board for board in boards.ALL if board.uid == "perfstream-latency").annotations
    rows = ask(kills.query)
    assert {(row["title"], row["text"], row["tags"]) for row in rows} == {
        ("OOM kill", "shop on node-a: /bin/true", "oomkill")
    }
    assert len(rows) == 2
    rows = ask(connects.query)
    assert sum(int(row["text"].split()[1]) for row in rows) == 3
    assert {row["text"].split(": ")[0] for row in rows} == {"shop"}
    assert list(rows[0]) == ["time", "title", "text", "tags"]
    assert ask(connects.query, chosen={"service": ["batch"]}) == []


def test_pipeline_health_counts_losses_and_gaps(ask, store, known):
    (lost,) = shown(ask, "perfstream-pipeline", "Lost on the nodes", node="node-b")
    assert lost["lost_percent"] == pytest.approx(100 * 3 / 503)
    accounts = shown(ask, "perfstream-pipeline", "Accounts")
    assert {(r["node"], r["collector"], r["messages"], r["missing"], r["rows"], r["lost"]) for r in accounts} == {
        (node, collector, 30, 0, 150, 90 if node == "node-b" else 0)
        for node in ("node-a", "node-b") for collector in ("cpu", "runqlat", "exec")
    }  # fmt: skip
    late = shown(ask, "perfstream-pipeline", "Late rows")
    assert sum(row["late_rows"] for row in late) == 5  # "do_nanosleep_[k]", once a minute


class Grafana:
    """Answers as Grafana's documented API does, from memory; ``requests`` keeps (method, path, headers, body)."""

    def __init__(self):
        self.requests, self.folders, self.dashboards = [], {}, {}
        self.failure = None
        self.authorization = "Bearer glsa_s3cret"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            do_POST = do_GET  # noqa: N815 - the base class names it so

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, request):
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length)) if length else None
        self.requests.append((request.command, request.path, dict(request.headers), body))
        status, answer, kind = self.route(request.command, request.path, request.headers, body)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def route(self, method, path, headers, body):
        kind = "application/json"
        if self.failure is not None:
            return self.failure
        if headers.get("Authorization") != self.authorization:
            return 401, {"message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401}, kind
        if method == "GET" and path.startswith("/api/folders/"):
            found = self.folders.get(path.rsplit("/", 1)[1])
            return (200, found, kind) if found else (404, {"message": "folder not found", "status": "not-found"}, kind)
        if (method, path) == ("POST", "/api/folders"):
            self.folders[body["uid"]] = body
            return 200, {"id": 1, **body, "url": f"/dashboards/f/{body['uid']}/x"}, kind
        if (method, path) == ("POST", "/api/dashboards/db"):
            uid = body["dashboard"]["uid"]
            if uid in self.dashboards and not body.get("overwrite"):
                return 412, {"message": "The dashboard has been changed by someone else"}, kind
            if body["folderUid"] not in self.folders:
                return 400, {"message": "folder not found"}, kind
            self.dashboards[uid] = body["dashboard"]
            return (
                200,
                {"id": 1, "uid": uid, "url": f"/d/{uid}/x", "status": "success", "version": 1, "slug": "x"},
                kind,
            )
        return 404, {"message": "Not found"}, kind


@pytest.fixture
def grafana():
    server = Grafana()
    yield server
    server.close()


@pytest.fixture
def push(run, monkeypatch):
    for name in ("URL", "TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"PERFSTREAM_GRAFANA_{name}", raising=False)
    return lambda *arguments, **environment: run("push", *arguments, **environment)


def test_push_makes_the_folder_and_replaces_every_dashboard(push, grafana):
    for _ in range(2):
        code, out, err = push("--url", grafana.url + "/", PERFSTREAM_GRAFANA_TOKEN="glsa_s3cret")
        assert (code, err) == (0, "")
        assert out.splitlines() == [f"{grafana.url}/d/{board.uid}/x" for board in boards.ALL]
    assert list(grafana.folders) == ["perfstream"]
    assert [r[1] for r in grafana.requests].count("/api/folders") == 1
    assert grafana.dashboards == {board.uid: json.loads(parts.build(board)) for board in boards.ALL}
    assert "s3cret" not in out


def test_push_with_a_user_and_its_own_folder(push, grafana):
    grafana.authorization = "Basic " + base64.b64encode(b"admin:pa:ss").decode()
    code, _out, _err = push(
        "--url", grafana.url, "--user", "admin", "--folder", "Telemetry", PERFSTREAM_GRAFANA_PASSWORD="pa:ss"
    )
    assert code == 0
    assert grafana.folders["perfstream"]["title"] == "Telemetry"


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (None, "does not accept these credentials"),
        ((403, {"message": "Permissions needed: folders:create"}, "application/json"), "give it the Editor role"),
        ((400, {"message": "bad\ndashboard"}, "application/json"), "refused: Bad Input: "),
        ((500, {"message": "Internal glsa_wr0ng"}, "application/json"), "failed (500); see its log, and try again"),
        ((503, "<html>busy</html>", "text/html"), "failed (503)"),
        ((200, "<html>login</html>", "text/html"), "is not Grafana's API; give Grafana's address"),
        ((200, {"odd": 1}, "application/json"), "is not Grafana's API"),
        ((200, "{cut", "application/json"), "is not Grafana's API"),
    ],
)
def test_a_failure_is_one_line_without_the_secret(push, grafana, failure, line):
    grafana.failure = failure
    code, out, err = push("--url", grafana.url, PERFSTREAM_GRAFANA_TOKEN="glsa_wr0ng")
    assert (code, out) == (1, "")
    assert line in err
    assert err.startswith("perfstream: ")
    assert grafana.url in err
    assert err.count("\n") == 1
    assert "wr0ng" not in err
    assert not grafana.dashboards


def test_an_absent_grafana_and_missing_settings_are_one_line(push):
    url = f"http://127.0.0.1:{free_port()}"
    code, _out, err = push("--url", url)
    assert code == 1
    assert "no credentials: set PERFSTREAM_GRAFANA_TOKEN" in err
    code, _out, err = push(PERFSTREAM_GRAFANA_TOKEN="glsa_s3cret")
    assert code == 1
    assert "give --url http://HOST:3000" in err
    code, _out, err = push("--url", "http://admin:s3cret@grafana:3000")
    assert code == 1
    assert "no user in it" in err
    assert "s3cret" not in err
    code, _out, err = push("--url", url)
    assert code == 1
    assert err.startswith(f"perfstream: no Grafana answers at {url}; is it running?")
    assert err.count("\n") == 1
