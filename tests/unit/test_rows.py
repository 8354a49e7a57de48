"""Messages to the rows of the tables: pure, in order, whatever the dictionaries look like."""

import numpy as np
import pyarrow as pa
import pytest

from sinks import rows, stacks, tables
from streams.schema import codec, stack_columns
from streams.schema.errors import CorruptRecordError
from streams.schema.messages import HOTSPOT, PROFILE, TEXT, Interval

DAY = 86_400_000_000_000
NOW = 1_700_000_000_123_000_000


def text(values, dictionary=None):
    if dictionary is not None:
        return pa.DictionaryArray.from_arrays(pa.array(values, pa.int32()), pa.array(dictionary)).cast(TEXT)
    return pa.array(values, pa.string()).dictionary_encode().cast(TEXT)


def profile(times, services, ids=(7, 9)):
    n = len(times)
    stack = stack_columns.entries([f"f{i}\t\t0" for i in ids], ids)
    columns = dict.fromkeys(PROFILE.names, text(["x"] * n))
    columns |= {
        "time_ns": pa.array(times, pa.int64()),
        "service": services,
        "stack": pa.DictionaryArray.from_arrays(pa.array([i % len(ids) for i in range(n)], pa.int32()), stack),
        "value": pa.array(range(n), pa.int64()),
        "period": pa.array([1] * n, pa.int64()),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in PROFILE.names], schema=PROFILE)


def message(batch, node="n", offset=3, schema="profile", **more):
    interval = Interval("cpu", "c", node, "p", 4, NOW, NOW + 5, events=11, lost=2, **more)
    value, headers = codec.encode(schema, batch, interval)
    topic = f"prefix.perfstream.{'raw.profiles' if schema == 'profile' else 'windows.hotspots'}"
    decoded = rows.decode(topic, 1, offset, NOW, headers, value)
    return rows.lean(decoded, set()) if schema == "profile" else decoded


def test_a_lean_message_has_the_texts_of_stacks_that_its_batch_has_not_seen():
    interval = Interval("cpu", "c", "n", "p", 4, NOW, NOW + 5, events=11)
    seen, found = set(), []
    for ids in ((7, 9), (9, 5, 5)):
        value, headers = codec.encode("profile", profile([NOW] * 3, text(["a"] * 3), ids=ids), interval)
        found.append(rows.lean(rows.decode("perfstream.raw.profiles", 0, 1, NOW, headers, value), seen))
    assert [one.batch.column("stack_id").to_pylist() for one in found] == [[7, 9, 7], [9, 5, 5]]
    assert [one.stacks.field("id").to_pylist() for one in found] == [[7, 9], [5, 5]]
    assert seen == {5, 7, 9}
    known = stacks.KnownStacks()
    known.unknown([])  # the day begins
    known.stored([9])
    table, ids = stacks.missing(found, known, 5)
    assert (ids, table["stack_id"].to_pylist(), table["functions"].to_pylist()) == ({5, 7}, [5, 7], [["f5"], ["f7"]])


def test_samples_of_several_messages_keep_their_order_identity_and_stacks():
    first = message(profile([NOW, NOW + 1], text(["a", "b"])), node="n1")
    second = message(profile([NOW + 2], text(["b"]), ids=(5,)), node="n2")
    table = rows.samples([first, second])
    assert set(table.column_names) == set(tables.SAMPLES.names)
    assert table["node"].to_pylist() == ["n1", "n1", "n2"]
    assert table["service"].to_pylist() == ["a", "b", "b"]
    assert table["stack_id"].to_pylist() == [7, 9, 5]
    assert table["value"].to_pylist() == [0, 1, 0]
    assert table["time"].cast(pa.int64()).to_pylist() == [NOW // 1_000_000] * 3
    assert rows.samples([first, second]).equals(table)


def test_a_dictionary_that_repeats_an_entry_is_made_distinct():
    table = rows.samples([message(profile([NOW] * 3, text([0, 1, 2], ["a", "a", "b"])))])
    (chunk,) = table["service"].chunks
    assert chunk.to_pylist() == ["a", "a", "b"]
    assert chunk.dictionary.to_pylist() == ["a", "b"]


def test_a_clock_ahead_is_clamped_in_rows_and_in_the_interval():
    taken = message(profile([NOW + DAY, NOW], text(["a", "a"])))
    assert taken.clamped == 1
    assert taken.batch.column("time_ns").to_pylist() == [NOW, NOW]
    ahead = rows.intervals([taken])
    assert (ahead["clamped"].to_pylist(), ahead["rows"].to_pylist(), ahead["lost"].to_pylist()) == ([1], [2], [2])
    assert ahead["offset"].to_pylist() == [3]
    assert set(ahead.column_names) == set(tables.INTERVALS.names)
    interval = Interval("cpu", "c", "n", "p", 4, NOW + 9 * DAY, NOW + 10 * DAY)
    value, headers = codec.encode("profile", profile([NOW], text(["a"])), interval)
    far = rows.intervals([rows.decode("perfstream.raw.profiles", 1, 3, NOW, headers, value)])
    latest = far["end_time"].cast(pa.int64()).to_pylist()[0]
    assert latest * 1_000_000 <= NOW + 10_000_000_000


@pytest.mark.parametrize("time_ns", [-(2**63), -1, 0, NOW - 8 * DAY])
def test_a_clock_far_behind_is_clamped_in_rows_and_in_the_interval(time_ns):
    taken = message(profile([NOW - 6 * DAY, time_ns], text(["a", "a"])))
    assert taken.clamped == 1
    assert taken.batch.column("time_ns").to_pylist() == [NOW - 6 * DAY, NOW - 7 * DAY]
    behind = Interval("cpu", "c", "n", "p", 4, max(time_ns, -(2**63) + 1), time_ns + 10)
    value, headers = codec.encode("profile", profile([NOW], text(["a"])), behind)
    table = rows.intervals([rows.decode("perfstream.raw.profiles", 1, 3, NOW, headers, value)])
    for name in ("time", "end_time"):
        assert table[name].cast(pa.int64()).to_pylist() == [(NOW - 7 * DAY) // 1_000_000]


@pytest.mark.parametrize("start_ns", [NOW - 41 * DAY, 0, NOW + 2 * DAY])
def test_windows_that_are_none_of_the_workers_are_corrupt(start_ns):
    message(hotspots([NOW - 39 * DAY, NOW]), schema="hotspot")
    with pytest.raises(CorruptRecordError, match="40 days"):
        message(hotspots([NOW, start_ns]), schema="hotspot")


def hotspots(starts):
    columns = {f.name: text(["x", "y"]) if f.type == TEXT else pa.array(np.array([1, 2]), f.type) for f in HOTSPOT}
    columns["window_start_ns"] = pa.array(starts, pa.int64())
    return pa.RecordBatch.from_arrays([columns[name] for name in HOTSPOT.names], schema=HOTSPOT)


def test_windows_are_rows_as_they_came_with_their_start_in_seconds():
    start = NOW // (60 * 10**9) * 60 * 10**9
    table = rows.windows([message(hotspots([start, start]), schema="hotspot")])
    assert set(table.column_names) == set(tables.HOTSPOTS.names)
    assert table["window_start"].cast(pa.int64()).to_pylist() == [start // 10**9] * 2
    assert table["self"].to_pylist() == [1, 2]
