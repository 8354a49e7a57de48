"""Which offsets a batch holds: any reading, any crash, the same ranges under the same tokens."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.consumer import linger
from sinks.ledger import Partition, intent_end, intent_metadata
from sinks.settings import BatchSettings


@dataclass
class Record:
    offset: int
    value: bytes = b"xx"
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple = (("rows", b"3"),)


def records(*offsets):
    return [Record(offset) for offset in offsets]


def offsets(batch):
    return [record.offset for record in batch.records]


def test_an_intent_is_read_back_and_anything_else_is_none():
    assert intent_end(5, intent_metadata(9)) == 9
    for offset, text in ((9, intent_metadata(9)), (5, ""), (5, None), (5, "{"), (5, "[]"), (5, '{"other": 7}'),
                         (5, '{"perfstream_intent_end": "9"}'), (5, "7")):  # fmt: skip
        assert intent_end(offset, text) is None


def test_an_announced_range_is_cut_exactly_whatever_the_limits():
    state = Partition("t", 2, 5, intent=8)
    state.add(records(5, 6), 0.0)
    assert not state.ready(99.0, 0.0, 1, 1)
    assert not state.full(1, 1)  # reading goes on until the range is complete
    state.add(records(7, 8, 9), 0.0)
    assert state.ready(0.0, 99.0, 10**9, 10**9)
    batch = state.cut(1, 1, 0.0)
    assert (batch.announced, offsets(batch), batch.token("x")) == (True, [5, 6, 7], "t:2:5-7:x")
    state.finish()
    assert (state.begin, state.intent) == (8, None)
    assert offsets(state.cut(10**9, 10**9, 0.0)) == [8, 9]


def test_a_batch_is_bounded_by_rows_and_by_bytes_but_never_empty():
    state = Partition("t", 0, 0)
    state.add(records(*range(10)), 0.0)
    assert offsets(state.cut(7, 10**9, 0.0)) == [0, 1, 2]
    state.finish()
    assert offsets(state.cut(10**9, 3, 0.0)) == [3, 4]
    state.finish()
    assert offsets(state.cut(0, 0, 0.0)) == [5]
    assert (state.rows, state.bytes) == (12, 8)


def test_it_lingers_and_waits_for_a_retry():
    state = Partition("t", 0, 0)
    assert not state.ready(0.0, 1.0, 100, 100)
    state.add(records(0), 10.0)
    assert not state.ready(10.5, 1.0, 100, 100)
    assert state.ready(11.0, 1.0, 100, 100)
    assert state.ready(10.5, 1.0, 3, 100)
    state.cut(100, 100, 11.0).retry_at = 20.0
    assert not state.ready(19.9, 0.0, 1, 1)
    assert state.ready(20.0, 0.0, 1, 1)


@pytest.mark.parametrize(("took", "waits"), [(0.0, 0.5), (0.2, 0.5), (0.4, 0.8), (0.5, 1.0), (30.0, 1.0)])
def test_a_busy_store_gets_fewer_and_larger_batches(took, waits):
    assert linger(BatchSettings(linger_s=0.5, busy_linger_s=1.0), took) == pytest.approx(waits)
    assert linger(BatchSettings(linger_s=2.0, busy_linger_s=1.0), took) == 2.0


def test_a_gap_is_sought_once_and_believed_the_second_time():
    state = Partition("t", 0, 5)
    assert state.add(records(8, 9), 0.0) == 5
    assert state.trimmed == 0
    assert state.add(records(8, 9), 0.0) is None
    assert (state.trimmed, state.expected) == (3, 10)
    assert state.add(records(7, 9, 10), 0.0) is None  # what was seen is passed over
    assert offsets(state.cut(10**9, 10**9, 0.0)) == [8, 9, 10]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.lists(st.tuples(st.sampled_from(["done", "crash", "crash stored"]), st.integers(1, 9),
                                              st.integers(1, 9)), max_size=30))  # fmt: skip
def test_tokens_tile_the_offsets_whatever_crashes(end, moves):
    """A store that keeps the first insert of a token holds each offset once."""
    committed, stored = (0, ""), {}
    moves = iter(moves)
    while committed[0] < end:
        kind, fetched, limit = next(moves, ("done", 5, 5))
        state = Partition("t", 0, committed[0], intent_end(*committed))
        while state.expected < end and not state.ready(0.0, 99.0, fetched * 3, 10**9):
            state.add(records(*range(state.expected, min(end, state.expected + fetched))), 0.0)
        batch = state.cut(limit * 3, 10**9, 0.0)
        if not batch.announced:
            committed = (batch.first, intent_metadata(batch.end))
        if kind == "crash":
            continue
        stored.setdefault(batch.token("x"), offsets(batch))
        if kind == "done":
            committed = (batch.end, "")
    assert sorted(offset for taken in stored.values() for offset in taken) == list(range(end))
