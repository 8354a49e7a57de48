"""Stacks of interpreted programs: what py-spy writes, and how a process's CPU time is spread over it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.interpreted import Interpreted, Seen, spread
from collectors.profile import pyspy
from streams.schema.errors import CorruptRecordError
from streams.schema.stacks import split


@given(
    st.integers(0, 1 << 53),
    st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any),
)
def test_spreading_keeps_the_sum_and_the_proportions(total, counts):
    parts = spread(total, np.array(counts, np.int64))
    assert int(parts.sum()) == total
    exact = [total * count / sum(counts) for count in counts]
    assert all(abs(part - wanted) <= 1 + total * 1e-15 for part, wanted in zip(parts.tolist(), exact, strict=True))
    assert np.all(parts >= 0)


def document(**changes):
    frames = [{"name": "main", "file": "/a.py", "line": 3}, {"name": "f;\n(x)", "file": None, "line": None}]
    profile = {"type": "sampled", "samples": [[0, 1], [0], [], [0, 1]]}
    return json.dumps({"profiles": [profile, profile], "shared": {"frames": frames}} | changes).encode()


def test_samples_of_all_threads_are_counted_by_stack():
    seen = pyspy.decode(document())
    assert [[tuple(frame) for frame in split(text)] for text in seen.texts] == [
        [("main", "/a.py", 3), ("f; (x)", "", 0)],
        [("main", "/a.py", 3)],
    ]
    assert seen.counts.tolist() == [4, 2]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", document()[:-9], document(profiles=[{"samples": [[7]]}]),
                                  document(profiles=[{"samples": 3}]), document(shared={})])  # fmt: skip
def test_what_py_spy_does_not_write(data):
    with pytest.raises(CorruptRecordError):
        pyspy.decode(data)


def test_a_source_gets_each_process_once():
    class Source:
        def exchange(self, pids, used_ns, until_ns):
            self.asked = pids.tolist(), used_ns.tolist(), until_ns
            return {7: Seen(["x\t\t0"], np.ones(1, np.int64))}

    interpreted, pids, used = Interpreted(), np.array([9, 7, 9], np.uint64), np.array([1, 2, 4], np.int64)
    assert interpreted.exchange(pids, used, 1) == {}
    interpreted.source = Source()
    assert list(interpreted.exchange(pids, used, 2)) == [7]
    assert interpreted.source.asked == ([7, 9], [2, 5], 2)
