"""How data look on a terminal, and the flame graph's page as text."""

import json
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner

from dashboards import show
from dashboards.flamegraph import page
from dashboards.reading import Flamegraph
from streams.schema.errors import PerfstreamError


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "nanoseconds", "0 ns"),
        (999, "nanoseconds", "999 ns"),
        (1500, "nanoseconds", "1.5 µs"),
        (61e9, "nanoseconds", "1.02 min"),
        (90 * 60e9, "nanoseconds", "1.5 h"),
        (-2_500_000, "nanoseconds", "-2.5 ms"),
        (0, "bytes", "0 B"),
        (1536, "bytes", "1.5 KiB"),
        (5 * 1024**3, "bytes", "5 GiB"),
        (12, "count", "12"),
        (1234, "count", "1.23 k"),
        (123_456_789, "count", "123 M"),
        (float("nan"), "nanoseconds", "-"),
        (None, "count", "-"),
    ],
)
def test_values_for_people(value, unit, text):
    assert show.human(value, unit) == text


def printed(write, *arguments, **options):
    @click.command()
    def command():
        write(*arguments, **options)

    done = CliRunner().invoke(command)
    assert done.exit_code == 0, done.exception
    return done.stdout, done.stderr


TOP = [
    {"function": "work", "self": 3_000_000, "self_share": 0.6, "total": 5_000_000, "total_share": 1.0,
     "unit": "nanoseconds"},
    {"function": "wait", "self": 1_000_000, "self_share": 0.2, "total": 1_000_000, "total_share": 0.2,
     "unit": "nanoseconds"},
]  # fmt: skip


def test_the_table_of_functions():
    out, err = printed(show.top, TOP)
    assert err == ""
    assert out == (
        "function  self  self %  total  total %\n"
        "work      3 ms   60.0%   5 ms   100.0%\n"
        "wait      1 ms   20.0%   1 ms    20.0%\n"
        "these 2 hold 80.0% of the whole; -n shows more\n"
    )
    assert "hold" not in printed(show.top, [TOP[0] | {"self_share": 1.0}])[0]


def test_tables_go_to_standard_error_when_asked():
    assert printed(show.top, TOP, err=True) == ("", printed(show.top, TOP)[0])


def test_the_tables_of_latencies_and_events():
    row = {"probe": "runqlat", "operation": "", "service": "shop", "count": 12345, "p50_ns": 1500.0, "p90_ns": 2e6,
           "p99_ns": 3e9, "max_ns": 4e9, "period": 1}  # fmt: skip
    assert printed(show.latency, [row])[0].splitlines() == [
        "probe    operation  service   count     p50   p90  p99  max",
        "runqlat             shop     12,345  1.5 µs  2 ms  3 s  4 s",
    ]
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    row = {"kind": "exec", "service": "shop", "count": 1234, "failed": 5, "last": at}
    assert printed(show.events, [row])[0].splitlines()[1] == "exec  shop     1,234       5  2026-01-31 12:00:00"


def test_a_name_cannot_move_the_cursor():
    out, _err = printed(show.write_table, [{"function": "evil\x1b[2J\r\nname"}])
    assert out == "function\nevil�[2J��name\n"


def test_json_keeps_names_and_times():
    rows = [{"function": "Ü\x1b", "last": datetime(2026, 1, 31, 12), "n": 3}]  # noqa: DTZ001 - as the driver gives it
    out, _err = printed(show.write_json, rows)
    assert json.loads(out) == [{"function": "Ü\x1b", "last": "2026-01-31T12:00:00+00:00", "n": 3}]


def test_a_sampled_latency_says_so():
    row = {"probe": "syscall", "operation": "read", "service": "shop", "count": 64, "p50_ns": 1, "p90_ns": 2,
           "p99_ns": 3, "max_ns": 4, "period": 16}  # fmt: skip
    out, _ = printed(show.latency, [row, row | {"period": 1}])
    heading, first, second = out.splitlines()
    assert heading.split()[-1] == "sampled"
    assert first.split()[-1] == "1/16"
    assert "1/" not in second


def test_no_rows_are_no_table():
    assert printed(show.write_table, []) == ("", "")


def test_waiting_shows_nothing_where_nobody_looks():
    def slow():
        with show.waiting("reading"):
            pass

    assert printed(slow) == ("", "")


GRAPH = Flamegraph("nanoseconds", [0, 1, 1], [10, 7, 3], [0, 7, 3], ["total", "</script><b>%%@data@%%", "k"])


def test_the_page_holds_names_as_data_only():
    text = page.render(GRAPH, "<b>&%%@script@%%", "cpu{}")
    assert "<title>&lt;b&gt;&amp;%%@script@%%</title>" in text
    assert text.count("</script>") == 2
    data = text.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    assert json.loads(data) == {
        "unit": "nanoseconds", "names": GRAPH.label, "level": [0, 1, 1], "value": [10, 7, 3],
        "self": [0, 7, 3], "label": [0, 1, 2],
    }  # fmt: skip
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_a_lone_surrogate_is_no_reason_to_fail(tmp_path):
    graph = Flamegraph("count", [0], [1], [1], ["\ud800"])
    assert page.write(tmp_path / "a" / "f.html", graph, "t") == (tmp_path / "a" / "f.html").stat().st_size


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PerfstreamError, match=r"cannot write .*/file/f\.html: .*; choose another file with -o"):
        page.write(tmp_path / "file" / "f.html", GRAPH, "t")


def compared(name, verdict, by, before, after):
    row = {"function": name, "verdict": verdict, "by": by, "unit": "nanoseconds"}
    for kind, scale in (("self", 1), ("total", 2)):
        points = 100 * scale * (after - before)
        row |= {f"baseline_{kind}_share": scale * before, f"comparison_{kind}_share": scale * after,
                f"{kind}_points": points, f"{kind}_points_low": points - 0.5, f"{kind}_points_high": points + 0.5,
                f"{kind}_p": 1.2e-5 * scale,
                f"baseline_{kind}_per_unit": 1500, f"comparison_{kind}_per_unit": None}  # fmt: skip
    return row


@pytest.mark.parametrize("width", [80, 100, 140, 160])
def test_a_comparison_fits_the_terminal(monkeypatch, capsys, width):
    rows = [
        compared("github.com/acme/checkout/pricing.(*Engine).evaluateDiscounts", "regressed", "self", 0.05, 0.07),
        compared("main", "removed", "total", 0.4, 0),
        compared("x", "too few samples", "", 0, 0.00001),
    ]
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show.comparison(rows, 20)
    lines = [click.unstyle(line) for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[-1] == "3 functions compared: 1 regressed, 1 removed"
    assert "+2.00 ± 0.50" in lines[1]
    assert "1.5 µs → -" in lines[1]
    assert "80.00% 0.00% -80.00 ± 0.50" in " ".join(lines[2].split())  # what the verdict is about
    assert ("2.4e-05" in lines[2]) == (width >= 100)
    assert "regressed" in lines[1]
