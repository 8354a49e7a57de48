"""What a replay passes: whatever batches were stored, every offset is inserted once, under the old ranges."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sinks.announced import Ranges
from sinks.ledger import Known, Partition


@dataclass
class Record:
    offset: int
    timestamp: int = 0
    value: bytes = b"xx"
    key: bytes | None = None
    headers: tuple = (("rows", b"1"),)


def known(*ranges):
    """Ranges as (first, end, finished); append times are ten times the offsets."""
    first, end, finished = (np.array(column) for column in zip(*ranges, strict=True))
    return Known(first, end, first * 10, (end - 1) * 10, finished.astype(bool))


def read(state, until):
    """Read a partition to its end as the sink does; returns the batches' ranges."""
    ranges = []
    for _ in range(1000):
        state.add([Record(at, at * 10) for at in range(state.expected, until)], 0.0)
        if not state.ready(1.0, 0.5, 3, 10**9):
            return ranges
        if state.place():
            continue
        batch = state.cut(3, 10**9, 0.0)
        assert [record.offset for record in batch.records] == list(range(batch.first, batch.end))
        ranges.append((batch.first, batch.end, batch.announced))
        state.finish()
    raise AssertionError("it does not come to an end")


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 7), st.booleans()), max_size=8),
    st.integers(0, 30),
    st.integers(0, 12),
)
def test_every_offset_is_stored_once_and_half_done_batches_in_their_old_ranges(shape, begin, more):
    ranges, at = [], 0
    for gap, length, finished in shape:
        ranges.append((at + gap, at + gap + length, finished))
        at += gap + length
    state = Partition("t", 0, begin)
    state.known = known(*ranges) if ranges else Known.nothing()
    done = read(state, max(at, begin) + more)
    stored = [offset for first, end, _ in done for offset in range(first, end)]
    assert len(stored) == len(set(stored))
    finished = {offset for first, end, fine in ranges if fine for offset in range(first, end)}
    half = [(first, end) for first, end, fine in ranges if not fine and end > begin]
    assert not finished & set(stored)
    assert set(range(begin, max(at, begin) + more)) <= finished | set(stored)
    for first, end in half:
        assert (first, end, True) in done


def test_batches_of_a_deleted_topic_of_the_same_name_are_not_believed():
    state = Partition("t", 0, 0)
    state.known = known((0, 100, True))
    state.add([Record(at, 5_000 + at) for at in range(7)], 0.0)
    assert not state.place()
    assert state.cut(99, 10**9, 0.0).end == 7


def test_what_was_appended_before_an_overlap_is_void():
    ranges = Ranges.of([(0, 50, 0, 10), (50, 90, 10, 20), (90, 300, 20, 30), (0, 7, 100, 110), (7, 9, 110, 120)])
    assert ranges.first.tolist() == [0, 7]
    assert ranges.end.tolist() == [7, 9]


def test_a_broker_s_clock_that_steps_back_voids_nothing():
    ranges = Ranges.of([(0, 5, 100, 110), (5, 9, 95, 99), (9, 11, 111, 112)])
    assert ranges.end.tolist() == [5, 9, 11]
    assert len(Ranges.of([]).first) == 0
