"""Tables of the gadgets: what fits, what is sorted how, units by the columns' names. Without a kernel."""

import json

import pyarrow as pa
import pytest

from collectors.file_path import path_of
from collectors.gadget.table import Screen, cell, choose, heading, lines, names, ordered, show_json, size
from collectors.top.base import WHO, schema
from streams.schema.errors import UsageError

KNOWN = ("service", "pid", "read_bytes", "written_bytes", "time_ns")


def rows():
    return pa.RecordBatch.from_pydict(
        {
            "service": ["shop", "a-very-long-name-of-a-service", "db\x1b[2J"],
            "pid": [1234567, 2, 3],
            "read_bytes": [10, 5, 1 << 20],
            "written_bytes": [0, 7, 1],
            "time_ns": [1_500, 2_000_000, 0],
        }
    )


def test_a_table_shows_units_without_naming_them():
    table = list(lines(rows(), KNOWN))
    assert table[0].split() == ["SERVICE", "PID", "READ", "WRITTEN", "TIME"]
    assert table[1].split() == ["shop", "1234567", "10B", "0B", "1.5µs"]
    assert table[3].split()[-3:] == ["1M", "1B", "0ns"]
    assert "\x1b" not in table[3]


@pytest.mark.parametrize("room", [80, 50, 43, 20])
def test_a_table_keeps_to_the_terminal_and_cuts_texts_first(room):
    table = list(lines(rows(), KNOWN, room))
    assert max(map(len, table)) <= room
    if room >= 43:
        assert "1234567" in table[1]
        assert ("…" in table[2]) is (room < 60)


@pytest.mark.parametrize(
    ("by", "pids"),
    [
        (("read_bytes",), [3, 1234567, 2]),
        (("read_bytes", "written_bytes"), [3, 2, 1234567]),
        (("service",), [2, 3, 1234567]),
        (("time_ns",), [2, 1234567, 3]),
    ],
)
def test_rows_are_ordered_by_sums_or_by_text(by, pids):
    assert ordered(rows(), by).column("pid").to_pylist() == pids
    assert ordered(rows().slice(0, 0), by).num_rows == 0


def test_the_form_is_checked():
    assert choose("columns", KNOWN, ("pid",)) == ("pid",)
    assert choose("columns=pid, time_ns", KNOWN, ("pid",)) == ("pid", "time_ns")
    assert choose("json", KNOWN, ("pid",)) is None
    assert names("pid", KNOWN) == ("pid",)
    with pytest.raises(UsageError, match="no column 'x'; there are: service"):
        choose("columns=x", KNOWN, ())
    with pytest.raises(UsageError, match="json"):
        choose("yaml", KNOWN, ())


def test_json_is_one_object_a_line(capsys):
    show_json(rows(), time="now")
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["pid"] for each in objects] == [1234567, 2, 3]
    assert list(objects[0]) == ["time", *KNOWN]


def test_blocks_follow_one_another_where_there_is_no_terminal(capsys):
    screen = Screen()
    assert screen.room() == (None, None)
    for _ in range(2):
        screen.block("title", iter(["HEAD", "row"]))
    assert capsys.readouterr().out == "title\nHEAD\nrow\n" + "\ntitle\nHEAD\nrow\n"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("pid", 12345, "12345"), ("calls", 12345, "12,345"), ("cpu_percent", 3.14159, "3.14"),
        ("mean_ns", 61.5, "62ns"),
        ("map_bytes", 1536, "1.5K"), ("x", None, "-"), ("cpu_percent", 118.04, "118.0"),
    ],
)  # fmt: skip
def test_cells(name, value, text):
    assert cell(name, value) == text


def test_headings_and_sizes():
    assert [heading(name) for name in ("cpu_percent", "read_bytes", "pid")] == ["CPU %", "READ", "PID"]
    assert [size(n) for n in (0, 1023, 1024, 1023 * 1024, 5 << 40)] == ["0B", "1023B", "1K", "1023K", "5T"]


def test_rows_begin_with_who_they_are_of():
    columns = schema(("calls", pa.uint64()))
    assert columns.names == [*WHO.names, "calls"]


@pytest.mark.parametrize(
    ("whole", "text"), [(1, "/var/log/app.log"), (0, "…/var/log/app.log")]
)  # fmt: skip
def test_a_path_is_put_together_from_the_leaf(whole, text):
    parts = b"app.log\0log\0var\0"
    assert path_of(len(parts).to_bytes(4, "little") + bytes([whole, 0, 0, 0]) + parts.ljust(768, b"x")) == text
    assert path_of(None) == ""
