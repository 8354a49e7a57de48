"""What machine code writes of frames is what Python writes, and what needs care is left to it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.ingest import pprof_compiled, pprof_reader, pprof_stacks
from collectors.scrapers import pprof
from streams.schema import stacks
from tests.integration.known_profiles import pprof as known
from tests.unit.pprof_agreement import decoded
from tests.unit.test_pprof_decode import RAW

NAMES = st.text(st.characters(min_codepoint=30, max_codepoint=130), max_size=4) | st.sampled_from(["main", "a" * 1025])


def same(data):
    """Return how often machine code wrote the frames."""
    wrote = []

    def counted(*given):
        found = pprof_stacks.stacks(*given)
        if found is not None:
            found[0].frames.validate(full=True)
            wrote.append(found)
        return found

    ours, theirs = decoded(data, read=pprof_compiled.read, stack=counted), decoded(data)
    if isinstance(theirs, str):
        assert ours == theirs
        return 0
    assert ours.texts == theirs.texts
    assert np.array_equal(ours.values, theirs.values)
    return len(wrote)


def test_real_profiles():
    # One has frames without names.
    assert sorted(same(raw) for raw in RAW) == [0] + [1] * (len(RAW) - 1)


SAMPLE = st.tuples(st.lists(NAMES, min_size=1, max_size=4), st.tuples(st.integers(0, 9)))


@given(st.lists(SAMPLE, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_names(samples):
    wrote = same(known(samples, compress=False))
    names = {name for chain, _ in samples for name in chain}
    plain = all(name and name.isascii() and name.isprintable() and len(name) <= stacks.MAX_FIELD for name in names)
    assert wrote == plain


@given(st.sampled_from(RAW), st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_profile(raw, data):
    broken = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    same(bytes(broken))


def test_the_endpoint_uses_it(monkeypatch):
    monkeypatch.setattr(pprof_reader, "_read", pprof_reader._read)
    monkeypatch.setattr(pprof_reader, "_stack", None)
    pprof_reader.prepare().join()
    assert pprof_reader._stack is pprof_stacks.stacks
    assert pprof_reader.decode(RAW[0]).texts == pprof.decode(RAW[0]).texts


def test_many_frames_with_long_names_are_refused_before_they_are_written(monkeypatch):
    data = known([(["r" * 500, f"leaf{number}" + "x" * 500], [1]) for number in range(10)], compress=False)
    for module in (pprof, pprof_stacks):
        monkeypatch.setattr(module, "MAX_TEXT", 5_000)
    assert decoded(data, read=pprof_compiled.read, stack=pprof_stacks.stacks) == decoded(data)
    assert "frames are longer" in decoded(data)
