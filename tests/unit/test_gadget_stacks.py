"""Stacks for the terminal: sums over intervals, functions, folded text, JSON, and the nodes of a flame graph."""

import json

import numpy as np
import pyarrow as pa
import pytest

from collectors.gadget import stacks
from collectors.gadget.cluster import with_node
from deploy import drawing
from deploy.cli import draw
from streams.schema import stack_columns
from streams.schema.errors import PerfstreamError, UsageError
from streams.schema.messages import PROFILE
from streams.schema.stacks import frame_text, join, stack_id


def batch(rows, time_ns=1_700_000_000_000_000_000):
    """Return rows of the contract: (service, path of functions, value)."""
    texts = [join([frame_text(name, f"{name}.c", 7) for name in path]) for _, path, _ in rows]
    distinct = sorted(set(texts))
    dictionary = stack_columns.entries(distinct)
    columns = {
        "time_ns": pa.array([time_ns] * len(rows), pa.int64()),
        **{
            name: pa.array([""] * len(rows), pa.string()).dictionary_encode()
            for name in ("namespace", "pod", "container", "version")
        },
        "service": pa.array([service for service, _, _ in rows], pa.string()).dictionary_encode(),
        "type": pa.array(["cpu"] * len(rows), pa.string()).dictionary_encode(),
        "unit": pa.array(["nanoseconds"] * len(rows), pa.string()).dictionary_encode(),
        "stack": pa.DictionaryArray.from_arrays(pa.array([distinct.index(t) for t in texts], pa.int32()), dictionary),
        "value": pa.array([value for _, _, value in rows], pa.int64()),
        "period": pa.array([20] * len(rows), pa.int64()),
    }
    made = pa.RecordBatch.from_arrays([columns[each.name].cast(each.type) for each in PROFILE], schema=PROFILE)
    return with_node(made, "default", "node1")


FIRST = [("shop", ("main", "five"), 50), ("shop", ("main", "three", "main"), 30), ("db", ("main", "five"), 7)]
SECOND = [("shop", ("main", "five"), 5), ("db", ("other",), 8)]


def rows():
    once = stacks.merged([batch(FIRST), batch([])])
    return stacks.merged([once, batch(SECOND, 1_800_000_000_000_000_000)])


def test_intervals_are_added_up_by_workload_and_stack():
    found = rows().to_pylist()
    assert [(row["service"], row["value"]) for row in found] == [("shop", 55), ("shop", 30), ("db", 8), ("db", 7)]
    assert {row["time_ns"] for row in found} == {1_700_000_000_000_000_000, 1_800_000_000_000_000_000}
    assert stacks.merged([]) is None
    assert stacks.merged([batch([])]) is None


def test_functions_count_once_in_their_total():
    own, whole = stacks.functions(stacks.paths(rows()))
    assert own == {"five": 62, "main": 30, "other": 8}
    assert whole == {"main": 92, "five": 62, "three": 30, "other": 8}


def test_the_table_is_sorted_by_self(capsys):
    stacks.view("columns").show(rows())
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["SELF", "SELF", "%", "TOTAL", "TOTAL", "%", "FUNCTION"]
    assert [line.split() for line in lines[:2]] == [
        ["62ns", "62.0", "62ns", "62.0", "five"],
        ["30ns", "30.0", "92ns", "92.0", "main"],
    ]
    assert [line.split()[-1] for line in lines] == ["five", "main", "other", "three"]


def test_folded_text_and_json(capsys):
    stacks.view("folded").show(rows())
    assert sorted(capsys.readouterr().out.splitlines()) == ["main;five 62", "main;three;main 30", "other 8"]
    stacks.view("json").show(rows())
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert set(objects[0]) == {*PROFILE.names, "cluster", "node", "time"}
    assert objects[0]["stack"]["frames"] == "main\tmain.c\t7\nfive\tfive.c\t7"
    assert objects[0]["stack"]["id"] == stack_id(objects[0]["stack"]["frames"])
    assert objects[0]["time"] == "2023-11-14T22:13:20.000000000Z"


def test_a_flame_graph_has_the_same_sums_and_the_greatest_first():
    graph = drawing.graph(stacks.paths(rows()))
    assert list(zip(graph.level, graph.label, graph.value, graph.self, strict=True)) == [
        (0, "all", 100, 0),
        (1, "main", 92, 0),
        (2, "five", 62, 62),
        (2, "three", 30, 0),
        (3, "main", 30, 30),
        (1, "other", 8, 8),
    ]
    deep = drawing.graph({tuple(f"f{n}" for n in range(1000)): 3})
    assert len(deep.level) == 1001
    assert int(np.sum(deep.self)) == 3


def test_the_page_is_written_or_one_line_says_why_not(tmp_path, capsys):
    page = tmp_path / "a" / "cpu.html"
    stacks.view("folded", page, draw).show(rows())
    assert "five" in page.read_text()
    assert "KiB" in capsys.readouterr().err
    with pytest.raises(PerfstreamError, match="cannot write"):
        stacks.write(tmp_path / "a", "x")
    with pytest.raises(UsageError, match="perfstream command"):
        stacks.view("folded", page)
