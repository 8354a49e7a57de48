"""The reading commands on a real store whose every sum is known."""

import json
import re
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from deploy import cli
from deploy.broker import free_port
from streams.schema.histogram import bucket_of, quantile
from tests.integration import known_rows
from tests.integration.known_rows import MS, ODD

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def known(store):
    """A migrated and filled database; the tests of this file only read it."""
    name = "reading_known"
    store.post(f"CREATE DATABASE {name}")
    yield known_rows.fill(store, name)
    store.post(f"DROP DATABASE {name} SYNC")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call the command line in this process: ``run(*arguments)`` gives (exit code, standard output, standard error)."""
    for name in ("PERFSTREAM_CLICKHOUSE_DSN", "PERFSTREAM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERFSTREAM_WORKDIR", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["perfstream", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def ask(run, known):
    """Call ``profile COMMAND`` on the known rows with ``--format json``; the rows."""

    def call(command, *arguments, times=known.times):
        code, out, err = run("profile", command, *arguments, *times, "--dsn", known.dsn, "--format", "json")
        assert code == 0, err
        return json.loads(out)

    return call


def by_name(rows, key="function"):
    return {row[key]: (row["self"], row["total"]) for row in rows}


def test_top_has_the_exact_sums_and_counts_recursion_once(ask, known):
    rows = ask("top", "-n", 100_000)
    assert by_name(rows) == known.top()
    assert sum(row["self"] for row in rows) == known.sum()
    assert [row["self"] for row in rows] == sorted((row["self"] for row in rows), reverse=True)
    walk = by_name(ask("top", "--service", "shop", "--version", "v1.1"))["walk"]
    assert walk == ((97 + 89) * 114 * 30 * MS, (97 + 89) * 114 * 30 * MS)
    assert set(rows[0]) == {"function", "self", "total", "self_share", "total_share", "unit"}
    assert rows[0]["function"] == "beta"
    assert rows[0]["self_share"] == pytest.approx(rows[0]["self"] / known.sum())


def test_n_rows_are_the_largest_and_the_table_says_what_they_hold(ask, run, known):
    rows = ask("top", "-n", 3)
    assert rows == ask("top", "-n", 100_000)[:3]
    _code, out, _err = run("profile", "top", "-n", 3, *known.times, "--dsn", known.dsn)
    lines = out.splitlines()
    assert lines[0].split()[0] == "function"
    assert [line.split()[0] for line in lines[1:4]] == [row["function"] for row in rows]
    share = sum(row["self"] for row in rows) / known.sum()
    assert lines[4].startswith(f"these 3 hold {share:.1%} of the whole")


@pytest.mark.parametrize(
    ("matcher", "labels"),
    [
        ("shop", {"service": "shop"}),
        ('shop{version="v1.1"}', {"service": "shop", "version": "v1.1"}),
        ('{version="v1.1", node="node-b"}', {"version": "v1.1", "node": "node-b"}),
        ('{namespace=~"jo.s"}', {"namespace": "jobs"}),
        ('{namespace!~"pro"}', {}),  # a regular expression matches the whole value
        ('{namespace!="prod"}', {"namespace": "jobs"}),
        ('batch{version=""}', {"service": "batch"}),
        ('{pod="batc-0"}', {"service": "batch"}),
        ("{pod=~`bat\\w-\\d`}", {"service": "batch"}),
        ('{service=~"\\\\p{Ll}+", version=""}', {"service": "batch"}),
    ],
)
def test_matchers_select_exactly(ask, known, matcher, labels):
    assert by_name(ask("top", matcher, "-n", 100_000)) == known.top(**labels)


def test_every_label_option_selects(ask, known):
    given = ("--service", "shop", "--version", "v1.0", "--namespace", "prod", "--node", "node-b")
    wanted = {"service": "shop", "version": "v1.0", "namespace": "prod", "node": "node-b"}
    assert by_name(ask("top", *given)) == known.top(**wanted)
    assert by_name(ask("top", "--type", "alloc_space")) == known.top(kind="alloc_space")


def test_time_ranges_are_half_open_and_may_be_given_in_many_ways(ask, known):
    def whole(*times):
        return sum(row["self"] for row in ask("top", "-n", 100_000, times=times))

    minute = known.start.timestamp() + 60
    first = sum(
        r["value"] for r in known.samples if r["type"] == "cpu" and r["time"] < f"{known.start:%Y-%m-%dT%H:%M}:59"
    )
    iso = known.start.isoformat()
    assert whole("--from", iso, "--to", f"{minute:.0f}") == first
    assert whole("--from", f"{known.start:%Y-%m-%dT%H:%M}", "--to", f"{minute - 0.001:.3f}") == first
    assert whole("--from", f"{minute:.0f}", "--to", known.end.isoformat()) == known.sum() - first
    assert whole("--since", "1h") == known.sum()
    assert whole("--from", "now-2h", "--to", "now-90m") == 0
    assert whole("--since", "5m", "--to", known.end.isoformat()) == known.sum()


def test_an_odd_name_is_data_wherever_it_is_used(ask, known):
    alone = known.top(service=ODD)
    assert by_name(ask("top", "--service", ODD)) == alone
    quoted = ODD.replace("\\", "\\\\").replace('"', '\\"')
    assert by_name(ask("top", f'{{service="{quoted}"}}')) == alone
    pattern = re.escape(ODD).replace("\\", "\\\\").replace('"', '\\"')
    assert by_name(ask("top", f'{{service=~"{pattern}"}}')) == alone
    assert next(row for row in ask("top", "--by", "service") if row["service"] == ODD)["version"] == "v'1"


@pytest.mark.parametrize(
    "evil", ["' OR 1=1 --", "'; DROP TABLE samples; --", "\\' OR 1=1 #", "{n:UInt32}", "x\n\ty", "%s"]
)
def test_injection_through_every_argument_is_harmless(run, known, store, evil):
    rows_before = store.post("SELECT count() FROM samples", database=known.database)
    quoted = evil.replace("\\", "\\\\").replace('"', '\\"')
    where = ("--dsn", known.dsn, "--format", "json")
    for option in ("--service", "--version", "--namespace", "--node", "--type"):
        code, out, _err = run("profile", "top", option, evil, *known.times, *where)
        assert (code, json.loads(out)) == (0, [])
    for arguments in (
        ("latency", "--probe", evil), ("latency", "--operation", evil), ("events", "--kind", evil),
        ("types", "--type", evil), ("top", f'{{service="{quoted}"}}'),
    ):  # fmt: skip
        code, out, err = run("profile", *arguments, *known.times, *where)
        assert (code, json.loads(out)) == (0, []), err
    for option in ("--since", "--from", "--to", "--by", "-n"):
        code, out, _err = run("profile", "top", option, evil, *where)
        assert (code, out) == (2, ""), option
    code, out, _err = run("profile", "top", evil, *known.times, *where)
    assert code in (0, 2)
    assert out in ("", "[]\n")
    assert store.post("SELECT count() FROM samples", database=known.database) == rows_before


@pytest.mark.parametrize(
    ("by", "name", "expected"),
    [
        ("file", "alph.c", (503 * 114 * 30 * MS, 503 * 114 * 30 * MS)),
        ("line", "alpha alph.c:3", (503 * 114 * 30 * MS, 503 * 114 * 30 * MS)),
        ("file", "[no file] main", (1700 * 30 * MS, None)),
    ],
)
def test_top_by_file_and_line(ask, by, name, expected):
    own, total = by_name(ask("top", "--by", by, "-n", 1000), by)[name]
    assert own == expected[0]
    assert total == expected[1] or expected[1] is None


def test_types(ask, run, known):
    rows = {row["type"]: row for row in ask("types")}
    assert set(rows) == {"cpu", "alloc_space", "inuse_space", "goroutine"}
    assert (rows["cpu"]["value"], rows["cpu"]["unit"]) == (known.sum(), "nanoseconds")
    assert (rows["cpu"]["services"], rows["cpu"]["nodes"]) == (3, 2)
    assert (rows["alloc_space"]["value"], rows["alloc_space"]["unit"]) == (4099 * 30, "bytes")
    assert [row["type"] for row in ask("types", "--type", "cpu")] == ["cpu"]
    _code, out, _err = run("profile", "types", *known.times, "--dsn", known.dsn)
    assert "120 KiB" in out


def test_latency_quantiles_are_those_of_the_merged_histogram(ask, known):
    rows = ask("latency")
    assert len(rows) == len(known.latencies)
    for row in rows:
        values = np.array(known.latencies[row["probe"], row["operation"], row["service"]], np.uint64)
        buckets, counts = np.unique(bucket_of(values), return_counts=True)
        assert row["count"] == len(values)
        assert row["max_ns"] == values.max()
        for q in (0.5, 0.9, 0.99):
            assert row[f"p{q * 100:.0f}_ns"] == quantile(buckets, counts.astype(np.uint64), q)
            assert row[f"p{q * 100:.0f}_ns"] == pytest.approx(np.quantile(values, q, method="inverted_cdf"), rel=0.032)
    assert [row["operation"] for row in ask("latency", "--probe", "syscall")] == ["write", "read"]
    assert [row["probe"] for row in ask("latency", '{probe!~"syscall|runqlat", operation=""}')] == ["tcpconnect"]
    assert [row["probe"] for row in ask("latency", 'batch{node="node-a"}', "-n", "1")] == ["blockio"]


def test_events_are_counted(ask, run, known):
    rows = ask("events")
    assert [(row["kind"], row["count"], row["failed"]) for row in rows] == [
        ("exec", 13, 0), ("tcpconnect", 7, 3), ("oomkill", 2, 0),
    ]  # fmt: skip
    assert len(ask("events", "--kind", "oomkill")) == 1
    # Rows of tables did not happen: they are counted where they are asked for.
    assert [(row["kind"], row["count"]) for row in ask("events", "--kind", "top_tcp")] == [("top_tcp", 17)]
    assert [row["kind"] for row in ask("events", '{kind=~"tcp.*", service!="x"}')] == ["tcpconnect"]
    code, _out, err = run("profile", "events", "--kind", "exce", *known.times, "--dsn", known.dsn)
    assert code == 0
    assert err.startswith('no events for {kind="exce"} from ')


def page_data(path):
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(found[1])


def test_flamegraph_adds_up_on_every_level(run, known, tmp_path):
    path = tmp_path / "new" / "flame.html"
    code, out, err = run("profile", "flamegraph", *known.times, "--dsn", known.dsn, "-o", path)
    assert (code, err) == (0, "")
    assert re.match(rf"{path}: \d+ nodes, .*, \d+ KiB\n", out)
    data = page_data(path)
    assert (data["unit"], data["value"][0], data["level"][0]) == ("nanoseconds", known.sum(), 0)
    assert data["names"][data["label"][0]] == "total"
    open_nodes, children = [], [0] * len(data["level"])
    for i, level in enumerate(data["level"]):
        assert level <= len(open_nodes)
        del open_nodes[level:]
        if open_nodes:
            children[open_nodes[-1]] += data["value"][i]
        open_nodes.append(i)
    assert all(data["value"][i] == data["self"][i] + children[i] for i in range(len(children)))

    names = [data["names"][label] for label in data["label"]]
    at = names.index("small")
    assert not any(name.startswith("tiny_") for name in names)
    assert (names[at + 1], data["value"][at + 1]) == ("(other)", 2 * MS * len(known_rows.TINY))
    assert data["value"][names.index("[stack not stored]")] == 700 * 30 * MS
    # Recursion stays visible as nested nodes here.
    assert names.count("walk") == 4
    assert "<script>alert(1)" not in path.read_text().replace("\\u003c", "")


def test_flamegraph_title_names_the_selection(run, known, tmp_path):
    path = tmp_path / "flame.html"
    code, _out, _err = run(
        "profile", "flamegraph", 'shop{version="v1.1"}', *known.times, "--dsn", known.dsn, "-o", path
    )
    assert code == 0
    assert "<title>shop v1.1 · cpu</title>" in path.read_text()
    assert page_data(path)["value"][0] == known.sum(service="shop", version="v1.1")


def test_old_times_come_from_the_hourly_rollup(ask, run, known):
    long_ago = ("--since", "40d")
    assert by_name(ask("top", "-n", 100_000, times=long_ago)) == known.top()
    assert by_name(ask("top", "shop", times=(*long_ago, "-n", "100000"))) == known.top(service="shop")
    assert by_name(ask("top", "--by", "service", times=long_ago), "service")["batch"][0] == known.sum(service="batch")
    code, _out, err = run("profile", "top", "--node", "node-a", *long_ago, "--dsn", known.dsn)
    assert code == 2
    assert "'node' is not kept here; select by cluster, namespace, service, version" in err


def test_nothing_found_says_what_there_is(run, known):
    code, out, err = run("profile", "top", "shpo", *known.times, "--dsn", known.dsn)
    assert (code, out) == (0, "")
    assert 'nothing recorded for cpu{service="shpo"} from ' in err
    assert "in that time there is: batch [cpu]; " in err
    assert "shop [alloc_space, cpu, goroutine, inuse_space] v1.0, v1.1" in err
    code, out, err = run("profile", "top", "--from", "now-3h", "--to", "now-2h", "--dsn", known.dsn, "--format", "json")
    assert (code, out) == (0, "[]\n")
    assert "profiles are there from " in err
    code, _out, err = run("profile", "flamegraph", "shpo", *known.times, "--dsn", known.dsn)
    assert code == 1
    assert err.count("\n") == 1


def test_an_expression_that_only_python_knows_is_one_line(run, known):
    code, out, err = run("profile", "top", '{service=~"(?=a)b"}', *known.times, "--dsn", known.dsn)
    assert (code, out) == (2, "")
    assert "not a regular expression" in err


def one_line(err):
    assert err.count("\n") == 1, err
    assert err.startswith("perfstream: ")
    return err


def test_an_absent_server_is_one_line_that_says_what_to_do(run, tmp_path):
    dsn = f"http://someone:s3cret@127.0.0.1:{free_port()}/perfstream"
    for command in ("types", "top", "flamegraph", "latency", "events"):
        code, out, err = run("profile", command, "--dsn", dsn)
        assert (code, out) == (1, "")
        assert "no ClickHouse answers at http://127.0.0.1:" in one_line(err)
        assert "make up" in err
        assert "s3cret" not in err
    code, _out, err = run("profile", "top")
    assert code == 1
    assert f"no running stack found at {tmp_path}" in one_line(err)


def test_a_server_that_hangs_up_or_is_something_else_is_one_line(run):
    with listening(b"") as dsn:
        assert run("profile", "top", "--dsn", dsn)[0] == 1
    with web_server(200, b"<html>hello</html>") as dsn:
        code, _out, err = run("profile", "top", "--dsn", dsn)
        assert code == 1
        one_line(err)


@contextmanager
def listening(answer):
    """A server that answers these bytes and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _address = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/perfstream"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@contextmanager
def web_server(status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the base class names it so

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/perfstream"
        server.shutdown()
        thread.join(5)


def test_wrong_credentials_and_a_missing_table_are_one_line(run, start, store):
    own = start("locked", environ={"PERFSTREAM_STORE_PASSWORD": "right"})
    code, _out, err = run("profile", "top", "--dsn", f"http://default:wr0ng@127.0.0.1:{own.port}/default")
    assert code == 1
    assert "Authentication failed" in one_line(err)
    assert "wr0ng" not in err
    code, _out, err = run("profile", "top", "--dsn", f"{store.dsn}/default")
    assert code == 1
    assert "perfstream migrate" in one_line(err)
    code, _out, err = run("profile", "top", "--dsn", f"{store.dsn}/never_made")
    assert code == 1
    assert "never_made" in one_line(err)
    assert "perfstream migrate" in err
