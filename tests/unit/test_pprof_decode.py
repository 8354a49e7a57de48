"""The decoder against an encoder and a model of our own, and against damaged real profiles."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.scrapers import pprof, pprof_tables, wire
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from tests.integration.known_profiles import number, piece, varint

CORPUS = {path.name: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "corpus/pprof").glob("*.gz"))}
RAW = [gzip.decompress(data) for data in CORPUS.values()]


def numbers(field, values, packed):
    if packed:
        return piece(field, b"".join(map(varint, values)))
    return b"".join(number(field, value) for value in values)


NAMES = ["", "main", "runtime.gc", "f", "é"]
FILES = ["", "/a.go"]
function = st.tuples(st.sampled_from(NAMES), st.sampled_from(FILES))
line = st.tuples(st.integers(0, 3), st.integers(0, 9))  # (function, line); function 3 does not exist
location = st.tuples(st.lists(line, max_size=3), st.integers(0, 2))  # (lines leaf first, mapping; 0: none)
sample = st.tuples(
    st.lists(st.integers(0, 4), max_size=6),
    st.lists(st.integers(-(1 << 62), 1 << 62), min_size=2, max_size=2),
    st.booleans(),
)
MODULES = ["/usr/lib/libc.so.6", ""]


def encode(functions, locations, samples):
    strings = ["", "cpu", "nanoseconds", "samples", "count", *NAMES[1:], *FILES[1:], MODULES[0]]
    at = strings.index
    out = [
        piece(1, number(1, at("samples")) + number(2, at("count"))),
        piece(1, number(1, at("cpu")) + number(2, at("nanoseconds"))),
    ]
    for places, values, packed in samples:
        label = piece(3, number(1, 1) + number(2, 2))
        out.append(piece(2, numbers(1, [7 * p + 3 for p in places], packed) + numbers(2, values, packed) + label))
    for i, module in enumerate(MODULES):
        out.append(piece(3, number(1, i + 1) + number(2, 4096 * i) + number(5, at(module))))
    for i, (lines, module) in enumerate(locations):
        body = number(1, 7 * i + 3) + number(2, module) + number(3, 0xABC)
        body += b"".join(piece(4, number(1, 5 * f + 2) + number(2, n)) for f, n in lines)
        out.append(piece(4, body))
    for i, (name, file) in enumerate(functions):
        out.append(piece(5, number(1, 5 * i + 2) + number(2, at(name)) + number(4, at(file))))
    out += [piece(6, text) for text in strings]
    out += [
        number(9, 1_700_000_000_000_000_000),
        number(10, 11),
        piece(11, number(1, 1) + number(2, 2)),
        number(12, 13),
    ]
    return b"".join(out)


def model(functions, locations, samples):
    """Return {stack text: summed values}, frame by frame in plain Python."""
    found = {}
    for places, values, _packed in samples:
        frames = []
        for place in places:
            lines, module = locations[place]
            unnamed = "[libc.so.6]" if module == 1 else ""
            for f, n in lines:
                name, file = functions[f] if f < len(functions) else ("", "")
                frames.append(stacks.frame_text(name or unnamed, file, n))
            if not lines:
                frames.append(stacks.frame_text(unnamed))
        text = stacks.join(frames[::-1]) or stacks.frame_text("")
        found[text] = [a + b for a, b in zip(found.get(text, [0, 0]), values, strict=True)]
    return found


@given(
    st.lists(function, min_size=3, max_size=3),
    st.lists(location, min_size=5, max_size=5),
    st.lists(sample, max_size=8),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_profile_decodes_to_what_the_model_says(functions, locations, samples, zipped):
    raw = encode(functions, locations, samples)
    profile = pprof.decode(gzip.compress(raw, 1) if zipped else raw)
    wrapped = {
        text: [(v + (1 << 63)) % (1 << 64) - (1 << 63) for v in values]
        for text, values in model(functions, locations, samples).items()
    }
    assert len(set(profile.texts)) == len(profile.texts)
    assert dict(zip(profile.texts, profile.values.tolist(), strict=True)) == wrapped
    assert (profile.types, profile.units) == (("samples", "cpu"), ("count", "nanoseconds"))
    assert (profile.time_ns, profile.duration_ns, profile.period) == (1_700_000_000_000_000_000, 11, 13)
    assert (profile.period_type, profile.period_unit, profile.default) == ("cpu", "nanoseconds", "cpu")


def test_stacks_too_deep_are_cut_and_counted_together():
    deep = [0] * 1500
    samples = [([1, *deep], [1, 10], True), ([1, *deep, 2], [2, 20], True), ([2, *deep], [4, 40], True)]
    locations = [([(0, 1)], 0), ([(1, 2)], 0), ([(2, 3)], 0)]
    profile = pprof.decode(encode([("f", ""), ("main", ""), ("runtime.gc", "")], locations, samples))
    assert sorted(profile.values.tolist()) == [[3, 30], [4, 40]]
    assert all(len(stacks.split(text)) == stacks.MAX_FRAMES for text in profile.texts)
    assert {stacks.split(text)[0].function for text in profile.texts} == {"[truncated]"}


@pytest.mark.parametrize("name", CORPUS)
def test_real_profiles(name):
    profile = pprof.decode(CORPUS[name])
    assert profile.samples > 0
    assert profile.texts
    assert profile.process == pprof.decode(CORPUS["heap.pb.gz"]).process != ""
    assert len(profile.process.split()) == 2
    assert all(len(stacks.split(text)) >= 1 for text in profile.texts)


def mutate(raw, data):
    out = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(out) - 1)))
        match data.draw(st.sampled_from(["set", "cut", "insert", "double", "end"])):
            case "set":
                out[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "cut":
                del out[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                out[at:at] = data.draw(st.binary(min_size=1, max_size=12))
            case "double":
                out[at:at] = out[at : at + data.draw(st.integers(1, 200))]
            case "end":
                del out[at:]
    return bytes(out)


@given(st.sampled_from(RAW), st.booleans(), st.data())
@settings(max_examples=500, deadline=None)
def test_a_damaged_profile_decodes_or_is_refused(raw, zipped, data):
    damaged = mutate(gzip.compress(raw, 1, mtime=0) if zipped else raw, data)
    try:
        profile = pprof.decode(damaged)
    except CorruptRecordError:
        return
    assert profile.values.shape == (len(profile.texts), len(profile.types))
    for text in profile.texts:
        stacks.split(text)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_are_refused(data):
    with pytest.raises(CorruptRecordError):
        pprof.decode(data)


WRONG = [
    (b"", "no sample type"),
    (b"  <!doctype html><html></html>", "HTML page"),
    (gzip.compress(b"<html>", mtime=0), "HTML page"),
    (b"heap profile: 1: 2 [3: 4] @ heap/1048576", "no pprof profile"),
    (gzip.compress(RAW[0], mtime=0)[:-9], "cut short"),
    (b"\x1f\x8b" + b"x" * 100, "gzip data are damaged"),
    (gzip.compress(bytes(40_000_000), 1, mtime=0), "larger than 32 MB when inflated"),
    (bytes(33_000_000 + (1 << 20)), "larger than 32 MB"),
    (number(9, 1) * (wire.MAX_FIELDS + 1), "more than 1000000 fields"),
    (
        piece(1, number(1, 0)) + piece(6, "") + piece(2, b"") * (pprof_tables.MAX_SAMPLES + 1),
        "more than 250000 samples",
    ),
    (piece(1, number(1, 0)) + piece(6, "") + piece(2, number(2, 1) + number(1, 1)), "location that is not in"),
    (piece(1, number(1, 0)) + piece(6, "") + piece(2, number(2, 1) * 2), "not one value for each type"),
    (piece(1, number(1, 9)) + piece(6, ""), "string index"),
    (piece(1, number(1, 0)) + piece(6, "") + number(2, 5), "field 2 .* wrong wire type"),
    (piece(1, number(1, 0)) + piece(6, "") + piece(9, "x"), "field 9 .* wrong wire type"),
    (piece(1, number(1, 0)) + piece(6, "") + piece(9, "x") + number(9, 1 << 62), "field 9 .* wrong wire type"),
    (piece(1, number(1, 0)) + piece(6, "") + piece(2, number(3, 1) * 30_000), "too many fields"),
    (piece(1, number(1, 0)) + piece(6, "") + piece(2, piece(2, b"\x01" * 9_000_000)), "more than 8 MB"),
    (piece(1, number(1, 0)) + piece(6, "") + piece(2, piece(2, b"\x81")), "ends inside a number"),
    (piece(1, number(1, 0)) + piece(6, "") + piece(2, piece(2, b"\x81" * 11 + b"\x01")), "longer than ten bytes"),
]


@pytest.mark.parametrize(("data", "message"), WRONG)
def test_what_is_wrong_is_said(data, message):
    with pytest.raises(CorruptRecordError, match=message):
        pprof.decode(data)


def test_a_number_of_fixed_width_is_not_there():
    raw = piece(1, number(1, 0)) + piece(6, "") + varint(9 << 3 | wire.FIXED64) + bytes(8)
    assert pprof.decode(raw).time_ns == 0


def test_few_bytes_cannot_become_endless_frames():
    # One location of a thousand inlined frames, named by a stack again and again.
    lines = b"".join(piece(4, number(1, 2)) for _ in range(1000))
    raw = piece(1, number(1, 0)) + piece(4, number(1, 1) + lines) + piece(5, number(1, 2) + number(2, 1))
    raw += piece(6, "") + piece(6, "f" * 900)
    stack = numbers(1, [1] * 200, packed=True) + number(2, 1)
    with pytest.raises(CorruptRecordError, match="longer than 128 MB as text"):
        pprof.decode(raw + piece(2, stack))
    with pytest.raises(CorruptRecordError, match="more than 2000000 frames"):
        pprof.decode(raw + piece(2, stack) * 11)


def test_mutual_order_of_packed_and_single_numbers():
    raw = numbers(1, [1, 2], packed=True) + numbers(1, [3], packed=False) + numbers(1, [300, 1 << 63], packed=True)
    data = np.frombuffer(raw, np.uint8)
    fields = wire.walk(data, np.array([0]), np.array([len(raw)]))
    owners, found = wire.repeated(data, fields.only(1))
    assert owners.tolist() == [0] * 5
    assert found.tolist() == [1, 2, 3, 300, 1 << 63]
