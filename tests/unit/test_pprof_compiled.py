"""Both readers of pprof's wire give the same tables, or both refuse."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.ingest import pprof_compiled, pprof_reader
from collectors.scrapers import pprof_tables, wire
from tests.integration.known_profiles import number, packed, piece, varint
from tests.integration.known_profiles import pprof as known
from tests.unit.pprof_agreement import agree
from tests.unit.test_pprof_decode import RAW, WRONG, encode, function, location, mutate, sample

ROOT = Path(__file__).parents[2]
BASE = piece(1, number(1, 0)) + piece(6, "")


@pytest.mark.parametrize("raw", [*RAW, known([(["main", "work"], [7, 9])], [("a", "b"), ("c", "d")], compress=False)])
def test_real_profiles(raw):
    assert agree(raw)


@given(
    st.lists(function, min_size=3, max_size=3),
    st.lists(location, min_size=5, max_size=5),
    st.lists(sample, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_any_profile(functions, locations, samples):
    assert agree(encode(functions, locations, samples))


@given(st.sampled_from(RAW), st.data())
@settings(max_examples=250, deadline=None)
def test_a_damaged_profile(raw, data):
    agree(mutate(raw, data))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data):
    agree(data)
    agree(BASE + data)


def long_varint(value, spare):
    """Return a number in more bytes than it needs, up to eleven."""
    out = bytearray(varint(value))
    for _ in range(min(spare, 11 - len(out))):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


whole = st.one_of(st.integers(0, 300), st.sampled_from([(1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]))
spared = st.sampled_from([0] * 12 + [1, 7, 9, 10])
numeral = st.builds(long_varint, whole, spared)
tag = st.builds(
    lambda field, form, spare: long_varint(field << 3 | form, spare), st.integers(0, 16), st.just(0), spared
)


@st.composite
def field(draw, inside):
    """A field of any number: a number, bytes (``inside``, of a length that may be wrong), a fixed width, or none."""
    at = draw(st.one_of(st.integers(0, 7), st.integers(0, 16), st.just(1 << 60)))
    form = draw(
        st.sampled_from([0, 0, 0, 2, 2, 2, 2, 1, 5, 3]) if draw(st.integers(0, 9)) == 0 else st.sampled_from([0, 2])
    )
    head = long_varint(at << 3 | form, draw(spared))
    if form == 0:
        return head + draw(numeral)
    if form == 2:
        body = draw(inside)
        wrong = draw(st.sampled_from([0] * 20 + [-1, 1, 1 << 62, (1 << 64) - 1 - len(body)]))
        return head + long_varint(max(0, len(body) + wrong), draw(spared)) + body
    return head + bytes(draw(st.sampled_from([8 if form == 1 else 4] * 4 + [3])))


def message(inside):
    return st.lists(field(inside), max_size=6).map(b"".join)


leaf = st.one_of(st.binary(max_size=8), st.lists(numeral, max_size=5).map(b"".join))
anything = message(message(message(leaf) | leaf) | leaf)


@given(anything, st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_fields_of_any_wire_type(data, based):
    agree(BASE + data if based else data)


@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda at, body: piece(at, body), st.sampled_from([1, 2, 3, 4, 5, 6, 11]), message(message(leaf) | leaf)
            ),
            st.builds(number, st.sampled_from([9, 10, 12, 14]), whole),
            st.just(piece(2, packed(1, [1, 300]) + number(2, 5))),
            st.just(piece(2, packed(2, [7]) + number(1, 1 << 63) + packed(1, [4, 4]))),
        ),
        max_size=8,
    ).map(b"".join)
)
@settings(max_examples=300, deadline=None)
def test_any_messages_of_a_profile(data):
    agree(BASE + data)


WHOLES = [0, 1, 300, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
WRAPPERS = {
    "profile": lambda body: body,
    "line": lambda body: piece(4, number(1, 1) + piece(4, body) + number(2, 3)),
    "sample": lambda body: piece(2, body + number(2, 5)),
    **{f"field {at}": lambda body, at=at: piece(at, body) for at in (1, 3, 4, 5, 11)},
}


def forms(at):
    """Every form of one field, good and bad."""
    yield from (number(at, value) for value in WHOLES)
    yield from (varint(at << 3) + long_varint(value, spare) for value in WHOLES for spare in (1, 8, 9, 10))
    yield from (long_varint(at << 3, spare) + b"\x05" for spare in (1, 8, 9, 10))
    yield from (varint(at << 3 | form) + bytes(size) for form in (1, 5) for size in (3, 4, 7, 8))
    yield from (varint(at << 3 | form) + bytes(8) for form in (3, 4, 6, 7))
    yield from (varint(at << 3 | 2) + varint(length) + b"\x08\x01" for length in (*range(4), *WHOLES))
    # Lengths that wrap to places before and behind this one.
    yield from (varint(at << 3 | 2) + varint((1 << 64) - back) + b"\x08\x01" for back in (*range(1, 14), 99))
    yield from (varint(at << 3 | 2) + varint((1 << 63) - back) + b"\x08\x01" for back in (*range(5), 23, 99))
    yield from (varint(at << 3), varint(at << 3) + b"\x80", b"\x80", b"")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_form_of_every_field(wrapper):
    taken = 0
    for at in (1, 2, 4, 9, 1 << 60) if wrapper == "profile" else (1, 2, 4):
        for form in forms(at):
            taken += agree(BASE + WRAPPERS[wrapper](form))
            taken += agree(BASE + WRAPPERS[wrapper](number(at, 7) + form))
    assert taken > 50


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (piece(2, number(2, 1)) + piece(2, packed(2, [3])), True),
        (piece(2, number(2, 1) + number(2, 2)) + piece(2, b""), False),
        (piece(11, number(1, 5) + number(2, 6)) + piece(11, number(1, 3)), True),
        (piece(11, b"") + number(12, 5) + number(12, 6), True),
        (piece(4, number(2, 9) + piece(4, number(2, 8)) + number(1, 7)) * 2, True),
        (piece(2, packed(2, [3]) + packed(1, [1, 1 << 63]) + number(1, 2) + packed(1, [])), True),
        (piece(1, number(1, 1)) + piece(2, packed(2, [1, 2])) + piece(1, b"") + piece(2, packed(2, [1, 2])), False),
        (piece(1, number(1, 1)) + piece(2, packed(2, [1, 2, 3])) + piece(1, b"") + piece(2, number(2, 4) * 3), True),
    ],
)
def test_what_belongs_together(data, taken):
    assert agree(BASE + data) == taken


@pytest.mark.parametrize("data", [data for data, _message in WRONG if len(data) < 100_000 and data[:2] != b"\x1f\x8b"])
def test_what_is_wrong_is_refused_in_the_same_words(data):
    agree(data)


@pytest.mark.parametrize(
    ("bound", "content"),
    [
        ("MAX_FIELDS", lambda n: number(8, 1) * (n - 2)),
        ("MAX_STEPS", lambda n: piece(4, number(5, 1) * n)),
        ("MAX_STEPS", lambda n: piece(4, piece(4, number(5, 1) * n))),
        ("MAX_STEPS", lambda n: piece(2, number(2, 1) + number(3, 1) * (n - 1))),
        ("MAX_STEPS", lambda n: piece(11, number(1, 1) * n)),
        ("MAX_STEPS", lambda n: piece(4, number(5, 1) * (n - 1) + piece(4, number(1, 1)))),
        ("MAX_WALKED", lambda n: piece(5, number(1, 1)) * n),
        ("MAX_WALKED", lambda n: piece(4, number(1, 1)) * n),
        ("MAX_WALKED", lambda n: piece(4, piece(4, number(1, 1))) * n),
        (
            "MAX_PACKED",
            lambda n: piece(2, packed(1, [1] * (n - 1)) + packed(2, [1])) + piece(2, packed(1, [2]) + packed(2, [3])),
        ),
    ],
)
def test_bounds_are_the_agree(monkeypatch, bound, content):
    monkeypatch.setattr(wire, bound, 23)
    bounds = (wire.MAX_FIELDS, wire.MAX_STEPS, wire.MAX_WALKED, wire.MAX_PACKED)
    monkeypatch.setattr(pprof_compiled, "_BOUNDS", bounds)
    assert agree(BASE + content(23))
    assert not agree(BASE + content(24))


def test_as_many_samples_as_the_bound(monkeypatch):
    for module in (pprof_tables, pprof_compiled):
        monkeypatch.setattr(module, "MAX_SAMPLES", 23)
    assert agree(BASE + piece(2, number(2, 1)) * 23)
    assert not agree(BASE + piece(2, number(2, 1)) * 24)


def told(statement="", **variables):
    """Return what a process says that runs the statement first, with the lines of its log."""
    code = f"""
import logging, sys
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
{statement}
from collectors.ingest import pprof_reader
assert sys.modules.get("numba") is None
pprof_reader.prepare().join()
print(pprof_reader._read.__module__, pprof_reader._read({RAW[0]!r}).values.shape)
"""
    environment = os.environ | variables
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    return answer.stdout


SHAPE = pprof_tables.read(RAW[0]).values.shape
COMPILED = f"INFO profiles are read by compiled code\ncollectors.ingest.pprof_compiled {SHAPE}\n"


def test_the_endpoint_compiles_and_keeps_it(tmp_path):
    assert told(NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED
    indexes = sorted(tmp_path.rglob("*.nbi"))
    assert len(indexes) == 10
    kept = [index.read_bytes() for index in indexes]
    assert told(NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED
    assert [index.read_bytes() for index in indexes] == kept
    for index in indexes:
        index.write_bytes(b"")  # as a machine leaves it that loses power
    assert told(NUMBA_CACHE_DIR=str(tmp_path)) == COMPILED


def test_the_endpoint_compiles_where_nothing_can_be_kept():
    assert told(NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator", NUMBA_CACHE_DIR="") == COMPILED


def test_without_numba_profiles_are_read_by_numpy():
    assert told("sys.modules['numba'] = None") == (
        f"INFO profiles are read by NumPy: numba is not installed\ncollectors.scrapers.pprof_tables {SHAPE}\n"
    )


def test_with_a_compiler_that_fails_profiles_are_read_by_numpy(monkeypatch, caplog):
    monkeypatch.setattr(pprof_reader, "_read", pprof_tables.read)
    monkeypatch.setattr(pprof_compiled, "_code", functools.partial(pprof_compiled.compiled, cache="no such thing", x=1))
    pprof_reader.prepare().join()
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "profiles are read by NumPy: cannot compile")
    assert record.reason.startswith("TypeError: ")
    assert pprof_reader._read(RAW[0]).values.shape == SHAPE


def test_arrays_are_the_callers_own():
    raw = known([(["main"], [7])], compress=False)
    first = pprof_compiled.tables(raw)
    first.values[:] = 0
    assert np.array_equal(pprof_compiled.tables(raw).values, [[7]])
