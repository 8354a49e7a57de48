"""Which window a time belongs to, and the snapshot in the commit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.schema.errors import SettingsError
from streams.watermark import BEFORE_ALL, SECOND, Snapshot, WindowSettings, starts

NUMBER = st.integers(BEFORE_ALL, 2**63 - 1)


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20), st.integers(1, 86_400))
def test_a_time_lies_in_its_window_and_windows_start_at_multiples(times, window_s):
    window_ns = window_s * SECOND
    found = starts(np.array(times, np.int64), window_ns).tolist()
    for time_ns, start in zip(times, found, strict=True):
        assert start % window_ns == 0
        assert start <= time_ns < start + window_ns


@given(st.integers(0, 2**63 - 1), NUMBER, NUMBER, st.integers(1, 3600), st.integers(1, 9999))
def test_a_snapshot_comes_back_from_the_commit(offset, watermark, closed, window_s, functions):
    config = WindowSettings(window_s, 5, functions)
    snapshot = Snapshot(offset, watermark, closed)
    assert Snapshot.unpack(snapshot.pack(config), 0, config) == snapshot
    assert len(snapshot.pack(config)) < 1000  # Kafka keeps 4,096 bytes


def test_no_commit_begins_at_the_offset_given():
    assert Snapshot.unpack("", 17, WindowSettings()) == Snapshot(17, BEFORE_ALL, BEFORE_ALL)


@pytest.mark.parametrize("text", ["w1 1 2", "w1 a b c 60 4096", "w2 1 2 3 60 4096", "x", "w1 1 2 3 60 4096 7"])
def test_a_commit_of_somebody_else_is_refused(text):
    with pytest.raises(SettingsError, match="not a window snapshot"):
        Snapshot.unpack(text, 0, WindowSettings())


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 100)), max_size=20))
def test_watermark_and_closed_never_fall_whatever_the_grace(messages):
    snapshot = Snapshot()
    for offset, (end, grace) in enumerate(messages):
        after = snapshot.after(offset, end, grace)
        assert after.watermark_ns >= max(snapshot.watermark_ns, end)
        assert after.closed_ns >= snapshot.closed_ns
        assert after.next_offset == offset + 1
        snapshot = after


@pytest.mark.parametrize("wrong", [(0, 0, 1), (1, -1, 1), (1, 0, 0)])
def test_settings_that_make_no_windows_are_refused(wrong):
    with pytest.raises(SettingsError, match="at least"):
        WindowSettings(*wrong)
