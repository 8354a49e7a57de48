"""Recursion, the kept set, and numbers that repeat dictionaries."""

import pyarrow as pa

from streams.columns import group_rows, sums_by, text_column
from streams.hotspots import Hotspots
from streams.schema import stack_columns, stacks
from streams.schema.messages import OTHER, PROFILE, TEXT, WORKLOAD, Interval


def batch(rows, services=None):
    """Rows of (functions root first, value); every stack stands in the dictionary again for each row."""
    texts = [stacks.join([stacks.frame_text(f, "a.c", i) for i, f in enumerate(functions)]) for functions, _ in rows]
    values = stack_columns.entries(texts)
    constant = pa.DictionaryArray.from_arrays(pa.array([0] * len(rows), pa.int32()), pa.array(["s"])).cast(TEXT)
    columns = dict.fromkeys([*WORKLOAD, "type", "unit"], constant)
    if services is not None:
        columns["service"] = services
    columns |= {
        "time_ns": pa.array([0] * len(rows), pa.int64()),
        "stack": pa.DictionaryArray.from_arrays(pa.array(range(len(rows)), pa.int32()), values),
        "value": pa.array([v for _, v in rows], pa.int64()),
        "period": pa.array([0] * len(rows), pa.int64()),
    }
    return pa.RecordBatch.from_arrays([columns[n] for n in PROFILE.names], schema=PROFILE)


HEAD = {"window_start_ns": 0, "window_s": 60, "shard": 0, "first_offset": 0, "last_offset": 0, "late": 0}


def count(kind, state, raw):
    kind.rows(Interval("cpu", "c", "n", "p", 0, 0, 1), raw).add_to(state, slice(None))
    return {(r["service"], r["function"]): (r["self"], r["total"]) for r in kind.changed(state, HEAD).to_pylist()}


def test_recursion_counts_once_in_total():
    kind = Hotspots(10)
    found = count(kind, kind.state(), batch([(["main", "f", "g", "f"], 5), (["main", "f", "f"], 7)]))
    assert found == {("s", "main"): (0, 12), ("s", "f"): (12, 12), ("s", "g"): (0, 5)}


def test_the_kept_set_is_the_heaviest_of_the_first_message_and_stays():
    kind = Hotspots(2)
    state = kind.state()
    first = count(kind, state, batch([(["a", "b"], 1), (["c"], 5), (["d", "a", "e"], 2)]))
    # a has 3 and c 5; b, d, e share the rest, and a stack through d and e counts once in it
    assert first == {("s", "a"): (0, 3), ("s", "c"): (5, 5), ("s", OTHER): (3, 3)}
    second = count(kind, state, batch([(["z"], 100), (["c", "z"], 10)]))
    assert second == {("s", "c"): (5, 15), ("s", OTHER): (113, 113)}


def test_a_frame_that_is_called_other_joins_the_remainder():
    kind = Hotspots(1)
    found = count(kind, kind.state(), batch([([OTHER, "a"], 9), (["b"], 1)]))
    assert found == {("s", "a"): (9, 9), ("s", OTHER): (1, 10)}


def test_only_changed_rows_are_given_again():
    kind = Hotspots(10)
    state = kind.state()
    count(kind, state, batch([(["a"], 1), (["b"], 1)]))
    assert count(kind, state, batch([(["b"], 2)])) == {("s", "b"): (3, 3)}


def test_a_dictionary_that_repeats_an_entry_is_one_group():
    services = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1], pa.int32()), pa.array(["s", "s"])).cast(TEXT)
    kind = Hotspots(10)
    found = count(kind, kind.state(), batch([(["a"], 1), (["a"], 2), (["a"], 4)], services))
    assert found == {("s", "a"): (7, 7)}


def test_a_stack_that_stands_twice_in_a_dictionary_changes_no_later_message():
    kind = Hotspots(10)
    state = kind.state()
    count(kind, state, batch([(["a"], 1), (["a"], 2)]))
    assert count(kind, state, batch([(["b", "c"], 4)])) == {("s", "b"): (0, 4), ("s", "c"): (4, 4)}


def test_values_beyond_doubles_are_exact():
    kind = Hotspots(10)
    big = 2**53 + 1
    found = count(kind, kind.state(), batch([(["a"], big), (["a"], 2)]))
    assert found == {("s", "a"): (big + 2, big + 2)}


def test_groups_of_large_dictionaries_are_found_without_a_large_table():
    size, rows = 5_000, 40
    texts = pa.array([f"t{i}" for i in range(size)])
    columns = {
        name: pa.DictionaryArray.from_arrays(pa.array([(i * step) % size for i in range(rows)], pa.int32()), texts)
        for name, step in (("a", 1), ("b", 7), ("c", 13), ("d", 17), ("e", 19), ("f", 23))
    }
    raw = pa.RecordBatch.from_pydict(columns)
    keys, inverse = group_rows(raw, list(columns), ("x",))
    assert [keys[i] for i in inverse.tolist()] == [
        ("x", *(f"t{(i * step) % size}" for step in (1, 7, 13, 17, 19, 23))) for i in range(rows)
    ]


def test_sums_are_the_same_by_table_and_by_sorting():
    import numpy as np

    codes, values = np.array([5, 1, 5, 9]), np.array([1, 2, 3, 4])
    for span in (10, 10**12):
        used, sums = sums_by(codes, values, span)
        assert (used.tolist(), sums.tolist()) == ([1, 5, 9], [2, 4, 4])


def test_a_text_column_holds_each_text_once():
    import numpy as np

    column = text_column(["x", "y", "x"], np.array([0, 2, 1, 0]))
    assert column.to_pylist() == ["x", "x", "y", "x"]
    assert column.dictionary.to_pylist() == ["x", "y"]
