"""What gadgets show: filters, columns, JSON, bars. Without a kernel."""

import json

import pyarrow as pa
import pytest
from click.testing import CliRunner

from collectors.catalogue import ALL, chosen
from collectors.gadget.command import _names, gadget
from collectors.gadget.filters import Filters, duration_ns
from collectors.gadget.histogram import bars
from collectors.gadget.output import Printer, plain, short
from streams.schema.errors import UsageError
from streams.schema.messages import EVENT


def events():
    base = {
        "time_ns": 1_700_000_000_123_456_789, "namespace": "", "pod": "", "container": "", "service": "shop",
        "version": "", "kind": "tcpconnect", "ppid": 1, "comm": "curl", "detail": "127.0.0.1:80", "attributes": [],
    }  # fmt: skip
    rows = [
        base | {"pid": 11, "uid": 0, "result": 0, "latency_ns": 50_000, "namespace": "a"},
        base | {"pid": 13, "uid": 7, "result": -111, "latency_ns": 3_000_000, "comm": "wget"},
        base | {"pid": 17, "uid": 7, "result": -110, "latency_ns": 9_000_000_000, "attributes": [("source", "x:1")]},
    ]
    columns = {name: [row[name] for row in rows] for name in EVENT.names}
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in EVENT], schema=EVENT)


@pytest.mark.parametrize(
    ("filters", "pids"),
    [
        (Filters(), [11, 13, 17]),
        (Filters(namespace="a"), [11]),
        (Filters(failed=True), [13, 17]),
        (Filters(uid=7, comm="curl"), [17]),
        (Filters(pid=13), [13]),
        (Filters(min_latency_ns=3_000_000), [13, 17]),
        (Filters(service="other"), []),
    ],
)
def test_every_condition_must_hold(filters, pids):
    assert filters.apply(events()).column("pid").to_pylist() == pids


@pytest.mark.parametrize(("text", "ns"), [("250us", 250_000), ("1.5ms", 1_500_000), ("2 s", 2_000_000_000)])
def test_durations(text, ns):
    assert duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "5", "ms", "5 parsecs", "-1s"])
def test_what_is_no_duration_says_how_to_write_one(text):
    with pytest.raises(UsageError, match="250us"):
        duration_ns(text)


def test_columns_name_errors_and_durations(capsys):
    Printer("columns", EVENT.names).rows(events())
    heading, first, second, third = capsys.readouterr().out.splitlines()
    assert heading.split() == ["TIME", "SERVICE", "COMM", "PID", "PPID", "UID", "RESULT", "LATENCY", "DETAIL"]
    assert first.split() == ["22:13:20.123", "shop", "curl", "11", "1", "0", "0", "50µs", "127.0.0.1:80"]
    assert "ECONNREFUSED" in second
    assert "ETIMEDOUT" in third
    assert "9s" in third.split()


def test_chosen_columns_and_a_wrong_one(capsys):
    Printer("columns=pid,attributes", EVENT.names).rows(events())
    assert capsys.readouterr().out.splitlines()[3].split() == ["17", "source=x:1"]
    with pytest.raises(UsageError, match="no column 'nonsense'"):
        Printer("columns=pid,nonsense", EVENT.names)
    with pytest.raises(UsageError, match="json"):
        Printer("yaml", EVENT.names)


def test_json_is_one_object_a_line_with_the_contracts_columns(capsys):
    Printer("json", EVENT.names).rows(events())
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["pid"] for each in objects] == [11, 13, 17]
    assert set(objects[0]) == {*EVENT.names, "time"}
    assert objects[0]["time"] == "2023-11-14T22:13:20.123456789Z"
    assert objects[2]["attributes"] == {"source": "x:1"}
    assert plain(events()) == objects


def test_a_name_with_escape_codes_cannot_move_the_cursor(capsys):
    rows = events()
    at = rows.schema.get_field_index("detail")
    evil = pa.array(["/bin/\x1b[2Jx", "a\nb", "c"], pa.string())
    Printer("columns=pid,detail", EVENT.names).rows(rows.set_column(at, rows.schema.field(at), evil))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 4


def test_bars_add_up_and_are_longest_where_most_is():
    rows = [{"buckets": [3, 40, 41], "counts": [2, 30, 1]}, {"buckets": [40], "counts": [30]}]
    lines = list(bars(rows))
    counts = [int(line.split()[3].replace(",", "")) for line in lines]
    assert sum(counts) == 63
    assert counts[-1] == 61
    assert lines[-1].count("█") == max(line.count("█") for line in lines)
    assert list(bars([])) == []


@pytest.mark.parametrize(("ns", "text"), [(0, "0ns"), (999, "999ns"), (1500, "1.5µs"), (2e6, "2ms"), (61e9, "61s")])
def test_short_durations(ns, text):
    assert short(ns) == text


def test_the_command_offers_what_the_catalogue_holds():
    for verb in ("trace", "profile"):
        entries = [entry for entry in ALL if entry.verb == verb]
        assert sorted(_names(verb)) == sorted(name for each in entries for name in (each.shown_as, each.also) if name)
    assert _names("profile").index("syscalls") == _names("profile").index("syscall") + 1
    listed = json.loads(CliRunner().invoke(gadget, ["list", "--format", "json"]).output)
    assert len(listed) == len(ALL)
    assert "trace exec" in CliRunner().invoke(gadget, ["list"]).output


def test_collectors_are_chosen_by_name():
    assert [entry.name for entry in chosen(("exec", "runqlat", "exec"))] == ["exec", "runqlat"]
    assert chosen(()) == tuple(entry for entry in ALL if entry.always_on)
    assert chosen(("none",)) == ()
    assert chosen(("python", "default"))[1:] == chosen(("default", "exec")) == chosen(())
    assert chosen(("python", "default"))[0].name == "python"
    with pytest.raises(UsageError, match="no collector 'nope'"):
        chosen(("nope",))
