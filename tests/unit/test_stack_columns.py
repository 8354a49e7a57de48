"""Stacks in columns say what their texts say, whatever is done with them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.ingest import pprof_reader, stack_digests, stack_ids
from collectors.ingest.stack_ids import StackIds
from collectors.scrapers.distinct_stacks import distinct_stacks
from streams.schema import codec, stack_columns, stacks
from streams.schema.messages import PROFILE, PROFILE_1, STACK_1, TEXT, Interval
from streams.schema.stack_columns import StackColumns, identify, merged

FRAMES = st.lists(st.sampled_from(["main\ta.c\t1", "é\t\t0", "work\tw.c\t7", "x\t\t0"]), min_size=1, max_size=6)
STACKS = st.lists(FRAMES.map(stacks.join), max_size=12)


@given(STACKS, st.data())
def test_taken_compacted_and_written_they_stay_what_they_were(texts, data):
    found = StackColumns.from_texts(texts)
    assert (len(found), found.texts().to_pylist()) == (len(texts), texts)
    assert found.text_bytes().tolist() == [len(text.encode()) for text in texts]
    chosen = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=9)) if texts else []
    taken = found.take(np.array(chosen, np.int64))
    compact = taken.compact()
    assert taken.texts().to_pylist() == compact.texts().to_pylist() == [texts[at] for at in chosen]
    assert set(compact.frames.to_pylist()) == {frame for at in chosen for frame in texts[at].split("\n")}
    entries = taken.entries(identify(taken))
    assert StackColumns.from_entries(entries).texts().to_pylist() == [texts[at] for at in chosen]
    assert entries.field("id").to_pylist() == [stacks.stack_id(texts[at]) for at in chosen]
    if len(entries) > 2:
        assert StackColumns.from_entries(entries[1:]).texts().to_pylist() == [texts[at] for at in chosen[1:]]


@given(STACKS)
def test_each_distinct_stack_once(texts):
    found, which = StackColumns.from_texts(texts).distinct()
    distinct = found.texts().to_pylist()
    assert len(distinct) == len(set(texts))
    assert [distinct[at] for at in which.tolist()] == texts


@given(st.lists(STACKS, min_size=1, max_size=4))
def test_merged_they_follow_each_other(parts):
    whole = merged([StackColumns.from_texts(texts) for texts in parts])
    assert whole.texts().to_pylist() == [text for texts in parts for text in texts]


def test_samples_of_frames_with_one_text_are_one_stack():
    frames = pa.array(["a\t\t0", "b\t\t0", "a\t\t0"])
    found, which = distinct_stacks(np.array([0, 1, 2, 1, 1]), np.array([2, 2, 1]), frames)
    assert found.texts().to_pylist() == ["a\t\t0\nb\t\t0", "b\t\t0"]
    assert which.tolist() == [0, 0, 1]


AGAIN = pprof_reader.compiled_again()


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.setattr(pprof_reader, "_again", AGAIN)


@pytest.mark.parametrize("bound", [1, 7, 400])
def test_remembered_ids_are_those_of_the_texts(compiled, bound):
    @given(st.lists(STACKS, min_size=1, max_size=6))
    def check(parts):
        for texts in parts:
            assert remembered(StackColumns.from_texts(texts)).tolist() == [stacks.stack_id(text) for text in texts]

    remembered = StackIds(bound)
    check()
    assert 0 < remembered.count <= bound


def test_without_machine_code_every_id_is_computed(monkeypatch):
    monkeypatch.setattr(pprof_reader, "_again", None)
    remembered = StackIds()
    assert remembered(StackColumns.from_texts(["a\t\t0", "b\t\t0"])).tolist() == [
        stacks.stack_id(text) for text in ("a\t\t0", "b\t\t0")
    ]
    assert not remembered.count


def test_a_stack_is_computed_once(compiled, monkeypatch):
    computed = []
    monkeypatch.setattr(stack_ids, "identify", lambda found: computed.append(len(found)) or identify(found))
    remembered = StackIds()
    texts = [f"main\t\t0\nf{number}\t\t{number}" for number in range(1009)]
    remembered(StackColumns.from_texts(texts))
    remembered(StackColumns.from_texts([*texts[::-1], "new\t\t0"]))
    assert computed == [1009, 1]


@given(STACKS, STACKS)
def test_digests_differ_where_texts_do(one, two):
    def digests(texts):
        return list(map(tuple, stack_digests.digests(StackColumns.from_texts(texts)).tolist()))

    known = dict(zip(digests(one) + digests(two), one + two, strict=True))
    assert len(known) == len({*one, *two})
    sliced = StackColumns.from_texts(one).take(np.arange(len(one)))
    assert list(map(tuple, stack_digests.digests(sliced).tolist())) == digests(one)


@given(st.lists(STACKS, min_size=1, max_size=4), st.data())
def test_merged_by_machine_code_they_hold_each_frame_once(parts, data):
    columns = [StackColumns.from_texts(texts) for texts in parts]
    keyed = [StackColumns(c.frames, c.codes, c.offsets, stack_digests.distinct_keys(c.frames)) for c in columns]
    assert all(c.keys is not None for c in keyed)
    whole = stack_digests.merged([data.draw(st.sampled_from(pair)) for pair in zip(columns, keyed, strict=True)])
    assert whole.texts().to_pylist() == [text for texts in parts for text in texts]
    if len(parts) > 1:
        assert len(set(whole.frames.to_pylist())) == len(whole.frames) == len(whole.keys)


@given(st.lists(st.text("ab", max_size=9), max_size=9))
def test_equal_frames_have_no_distinct_keys(frames):
    keys = stack_digests.distinct_keys(pa.array(frames, pa.string()))
    assert (keys is None) == (len(set(frames)) < len(frames))


def test_no_two_of_many_frames_have_one_key():
    texts = [f"{'f' * (number % 9)}{number}\tdirectory{number % 7}/file.c\t{number}" for number in range(200_003)]
    assert stack_digests.distinct_keys(pa.array(texts)) is not None


def test_a_profile_of_version_1_is_read_as_one_of_today():
    texts = ["main\tm.c\t1\nwork\tm.c\t2", "main\tm.c\t1", ""]
    ids = pa.array([stacks.stack_id(text) for text in texts], pa.uint64())
    old = pa.StructArray.from_arrays([ids, pa.array(texts)], fields=list(STACK_1))
    data = dict.fromkeys(PROFILE.names, pa.array(["x"] * 4).dictionary_encode().cast(TEXT))
    data |= {name: pa.array([1, 2, 3, 4]) for name in ("time_ns", "value", "period")}
    column = pa.array([2, 0, 1, 0], pa.int32())
    batch = pa.RecordBatch.from_arrays(
        list((data | {"stack": pa.DictionaryArray.from_arrays(column, old)}).values()), schema=PROFILE_1
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PROFILE_1) as writer:
        writer.write_batch(batch)
    new = pa.RecordBatch.from_arrays(
        list((data | {"stack": pa.DictionaryArray.from_arrays(column, stack_columns.entries(texts))}).values()),
        schema=PROFILE,
    )
    _, headers = codec.encode("profile", new, Interval("cpu", "c", "n", "p", 0, 1, 2))
    assert headers[0] == ("schema", b"profile/2")
    _, interval, read = codec.decode([("schema", b"profile/1"), *headers[1:]], sink.getvalue().to_pybytes())
    assert interval.version == 1
    assert read.schema == PROFILE
    assert read.to_pylist() == new.to_pylist()
    assert [stacks.join(row["stack"]["frames"]) for row in read.to_pylist()] == ["", texts[0], texts[1], texts[0]]


@pytest.mark.parametrize("again", [None, AGAIN], ids=["NumPy", "compiled"])
def test_ids_are_numbered_as_they_are_first_seen(monkeypatch, again):
    monkeypatch.setattr(pprof_reader, "_again", again)

    @given(st.lists(st.sampled_from([0, 1, 7, 2**63, 2**64 - 1]), max_size=12))
    def check(ids):
        number, first = pprof_reader.first_seen(np.array(ids, np.uint64))
        distinct = list(dict.fromkeys(ids))
        assert [distinct[at] for at in number.tolist()] == ids
        assert first.tolist() == [ids.index(one) for one in distinct]

    check()
