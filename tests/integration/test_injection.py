"""Nothing that a user types becomes SQL: every argument of the reading commands, every variable of the dashboards."""

import json
import sys
from datetime import timedelta

import clickhouse_connect
import pytest

from dashboards import boards, check
from dashboards.store import Store
from deploy import cli
from streams.schema.errors import StoreRejectedError
from tests.integration import known_rows

pytestmark = pytest.mark.services
READER = {"PERFSTREAM_STORE_READER_USERNAME": "reader", "PERFSTREAM_STORE_READER_PASSWORD": "look"}
EVIL = [
    "'); DROP TABLE samples; --", "\\' OR 1=1 #\n\t\0", "{n:UInt32} ${type:singlequote} %s `",
    "$__conditionalAll(1=1, $type)", "\\",
]  # fmt: skip
TABLES = "SELECT arraySort(groupArray((name, total_rows))) FROM system.tables WHERE database = currentDatabase()"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A store with known rows, and a client of its reading user."""
    from tests.integration.conftest import start_store

    running = start_store(tmp_path_factory.mktemp("injection") / "data", environ=READER)
    try:
        running.post("CREATE DATABASE known")
        running.known = known_rows.fill(running, "known")
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=running.port, username="reader", password="look", database="known",
            autogenerate_session_id=False,
        )  # fmt: skip
        running.reader = Store(client)
        yield running
        client.close()
    finally:
        running.stop()


@pytest.fixture
def untouched(site):
    before = site.post(TABLES, database="known")
    yield
    assert site.post(TABLES, database="known") == before


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call the command line in this process: (exit code, standard output, standard error)."""
    for name in ("PERFSTREAM_CLICKHOUSE_DSN", "PERFSTREAM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERFSTREAM_WORKDIR", str(tmp_path / "none"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["perfstream", "profile", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


LABELS = ("--service", "--version", "--namespace", "--node")
TEXTS = {
    "types": ("--type",), "top": ("--type",), "flamegraph": ("--type",), "latency": ("--probe", "--operation"),
    "events": ("--kind",),
}  # fmt: skip


@pytest.mark.parametrize("evil", EVIL[:2])
@pytest.mark.parametrize("command", TEXTS)
def test_arguments_of_the_reading_commands(site, run, untouched, tmp_path, command, evil):
    times, where = site.known.times, ("--dsn", site.known.dsn)
    output = ("-o", tmp_path / "flame.html") if command == "flamegraph" else ("--format", "json")
    quoted = evil.replace("\\", "\\\\").replace('"', '\\"')
    given = [(option, evil) for option in (*LABELS, *TEXTS[command])]
    given += [(f'{{{label}="{quoted}"}}',) for label in ("service", "pod", "container", "cluster")]
    for arguments in given:
        code, out, err = run(command, *arguments, *times, *where, *output)
        if command == "flamegraph":
            assert (code, out) == (1, ""), arguments
            assert "nothing recorded" in err
        else:
            assert (code, json.loads(out)) == (0, []), (arguments, err)
        assert "Code:" not in err
    for option in ("--since", "--from", "--to", *(("-n",) if command in ("top", "latency", "events") else ())):
        code, out, err = run(command, option, evil, *where, *output)
        assert (code, out) == (2, ""), (option, err)
    code, out, _err = run(command, evil, *times, *where, *output)
    assert code in (0, 1, 2)
    assert out in ("", "[]\n")
    code, out, _err = run(command, *times, "--dsn", f"{site.dsn}/{evil.replace('/', '')}", *output)
    assert (code, out) in ((1, ""), (2, "")), out


@pytest.mark.parametrize("evil", EVIL[:2])
def test_arguments_of_export_list_and_compare(site, run, untouched, tmp_path, evil):
    times, where = site.known.times, ("--dsn", site.known.dsn)
    quoted = evil.replace("\\", "\\\\").replace('"', '\\"')
    matcher = f'{{service="{quoted}"}}'
    sides = ("--baseline", matcher, "--comparison", "shop")
    for arguments in (
        *(("export", option, evil) for option in (*LABELS, "--type")), ("export", matcher), ("list", evil),
        *(("list", "alpha", option, evil) for option in (*LABELS, "--type")), ("list", "alpha", matcher),
        ("compare", *sides), ("compare", "--baseline", "shop", *sides[2:], "--type", evil),
        ("compare", "--baseline", "shop", "--comparison", "shop", "--load", evil, "--fail-on-regression"),
    ):  # fmt: skip
        output = ("-o", tmp_path / "x.pb.gz") if arguments[0] == "export" else ("--format", "json")
        code, out, err = run(*arguments, *times, *where, *output)
        if "--load" in arguments:
            assert (code, json.loads(out)[0]["verdict"]) == (0, "no finding"), err
        else:
            assert (code, out) == (1, ""), (arguments, err)
            assert "nothing recorded" in err or "no function" in err
        assert "Code:" not in err


UNKNOWN = {}
"""What an unknown plain value gives, by board, panel and variable: asked once."""


def panels():
    return [(board, panel) for board in boards.ALL for panel in board.panels]


@pytest.mark.parametrize("evil", EVIL)
def test_variables_of_the_dashboards(site, untouched, evil):
    """A variable's odd value selects nothing, as an unknown plain one does.

    Grafana escapes the quotes in a variable and not its backslashes. What a backslash before a quote can do, it does
    as the reading user, which sees the tables that it may see anyway, and no other.
    """
    start, end = site.known.start, site.known.end + timedelta(minutes=1)
    escapes = "\\" in evil
    for board, panel in panels():
        names = (*board.variables, *board.single)
        for name in names:
            values = {other: [check.ALL] for other in board.variables} | {other: ["cpu"] for other in board.single}

            if check.expand(panel.sql, start, end, values | {name: [evil]}) == check.expand(
                panel.sql, start, end, values | {name: ["no such value"]}
            ):
                continue  # this panel does not use it

            def ask(value, values=values, name=name, panel=panel):
                rows = site.reader.rows(check.expand(panel.sql, start, end, values | {name: [value]}))
                return [{key: row[key] for key in row if key != "age_s"} for row in rows]

            try:
                found = ask(evil)
            except StoreRejectedError:
                assert escapes, (board.title, panel.title, name)
                continue
            if not escapes:
                place = (board.title, panel.title, panel.kind, name)
                if place not in UNKNOWN:
                    UNKNOWN[place] = ask("no such value")
                assert found == UNKNOWN[place], place
