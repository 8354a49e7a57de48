"""The JFR decoder against recordings of the JVM and of Pyroscope's agent, chunks of our own, and damaged ones."""

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.ingest import jfr, jfr_bytes, jfr_labels
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from tests.unit import jfr_writer as writer

CORPUS = Path(__file__).parents[1] / "corpus/jfr"
AGENT = (CORPUS / "agent.jfr").read_bytes()
LABELS = (CORPUS / "agent.labels").read_bytes()
WALL = (CORPUS / "wall.jfr").read_bytes()
JVM = gzip.decompress((CORPUS / "jvm.jfr.gz").read_bytes())


def sums(parts):
    """Return {(metric, labels): (first sum, second sum)}."""
    found = {}
    for part in parts:
        key = part.metric, tuple(part.labels.items())
        assert key not in found
        found[key] = tuple(part.profile.values.sum(axis=0).tolist())
    return found


def leaves(part, column=1):
    found = {}
    for text, value in zip(part.profile.texts, part.profile.values[:, column].tolist(), strict=True):
        name = stacks.split(text)[-1].function
        found[name] = found.get(name, 0) + value
    return found


# What ``jfr summary`` and ``jfr print`` say of the same files.


def test_a_recording_of_the_jvm():
    parts = jfr.decode((CORPUS / "jvm.jfr.gz").read_bytes())
    found = {part.metric: part for part in parts}
    counts = {name: int(part.profile.values[:, 0].sum()) for name, part in found.items()}
    assert counts == {"process_cpu": 154, "memory": 3443 + 28, "mutex": 47, "block": 243}
    cpu = found["process_cpu"].profile
    assert (cpu.types, cpu.units) == (("samples", "process_cpu"), ("count", "nanoseconds"))
    assert (cpu.period, cpu.period_unit) == (10_000_000, "nanoseconds")  # "10 ms" in its settings
    by_leaf = leaves(found["process_cpu"])
    assert by_leaf["Split.seven"] == 107 * 10_000_000
    assert by_leaf["Split.three"] == 46 * 10_000_000
    assert leaves(found["mutex"], 0) == {"Split.main": 47}
    (parked,) = [stacks.split(text) for text in found["block"].profile.texts]
    assert [frame.function for frame in parked][1] == "Split$$Lambda.run"
    assert parked[-1].function == "jdk.internal.misc.Unsafe.park"
    assert (cpu.time_ns, cpu.duration_ns) == (1795667376408383793, 4046802951)


def test_a_recording_of_the_agent_with_its_labels():
    assert sums(jfr.decode(AGENT, LABELS)) == {
        ("process_cpu", ()): (10, 10 * 10_000_000),
        ("process_cpu", (("tier", "gold"),)): (115, 115 * 10_000_000),
        ("process_cpu", (("tier", "tin"),)): (56, 56 * 10_000_000),
        ("memory", ()): (6, 3145728),
        ("memory", (("tier", "tin"),)): (798, 418381824),
    }
    gold = next(part for part in jfr.decode(AGENT, LABELS) if part.labels == {"tier": "gold"})
    assert leaves(gold, 0).keys() <= {"Split.seven", "Labelled.lambda$main$0"}
    native = [frame for part in jfr.decode(AGENT) for text in part.profile.texts for frame in stacks.split(text)]
    assert any(frame.file == "libjvm.so" and frame.line == 0 for frame in native)


def test_only_labels_that_are_kept_tell_profiles_apart():
    whole = {("process_cpu", ()): (181, 1810000000), ("memory", ()): (804, 421527552)}
    assert sums(jfr.decode(AGENT)) == whole
    assert sums(jfr.decode(AGENT, LABELS, keep={"version"})) == whole
    assert len(jfr.decode(AGENT, LABELS, keep={"tier"})) == 5


def test_wall_clock_samples_count_as_often_as_they_stand_for():
    assert sums(jfr.decode(WALL)) == {("wall", ()): (4474, 4474 * 10_000_000)}


def test_chunks_add_up_and_span_all():
    one, two = jfr.decode(AGENT, LABELS), jfr.decode(AGENT + AGENT, LABELS)
    assert {key: tuple(2 * n for n in value) for key, value in sums(one).items()} == sums(two)
    assert [part.profile.texts for part in one] == [part.profile.texts for part in two]
    both = jfr.decode(JVM + AGENT)
    assert {part.profile.time_ns for part in both} == {1795667376408383793}
    assert min(part.profile.duration_ns for part in both) > 60_000_000_000


# Chunks of our own.

EVENTS = {
    "jdk.ExecutionSample": (
        30,
        [("note", "java.lang.String", ""), ("pairs", "test.Pair", "a"), ("state", "jdk.types.ThreadState", "c"),
         ("pair", "test.Pair", ""), ("contextId", "long", ""), ("stackTrace", "jdk.types.StackTrace", "c"),
         ("late", "java.lang.String", "")],
    ),
    "jdk.JavaMonitorEnter": (31, [("stackTrace", "jdk.types.StackTrace", "c"), ("duration", "long", "t")]),
    "jdk.ObjectAllocationSample": (32, [("weight", "long", ""), ("stackTrace", "jdk.types.StackTrace", "c")]),
    "jdk.ObjectAllocationInNewTLAB": (33, [("tlabSize", "long", ""), ("stackTrace", "jdk.types.StackTrace", "c")]),
    "profiler.LiveObject": (34, [("allocationSize", "long", ""), ("stackTrace", "jdk.types.StackTrace", "c")]),
    "profiler.Malloc": (35, [("stackTrace", "jdk.types.StackTrace", "c"), ("size", "long", "")]),
    "jdk.ThreadPark": (36, [("stackTrace", "jdk.types.StackTrace", "c"), ("duration", "long", "t")]),
    "jdk.ActiveSetting": (
        37, [("id", "long", ""), ("name", "java.lang.String", ""), ("value", "java.lang.String", "")],
    ),
    "jdk.CPUTimeSample": (38, [("stackTrace", "jdk.types.StackTrace", "c"), ("samplingPeriod", "long", "t")]),
}  # fmt: skip
BIG = (1 << 64) - 3
SYMBOLS = {1: "com/acme/Näh", 2: "run", 3: "()V", 4: "com/acme/Job$$Lambda$14/0x0000000800c03000", 5: "()L;",
           6: "libc.so.6", 7: "malloc", 8: "$Proxy12"}  # fmt: skip
CLASSES = {1: 1, 2: 4, 3: 6, BIG: 8}
METHODS = {1: (1, 2, 3), 2: (2, 2, 3), 3: (3, 7, 5), BIG: (BIG, 2, 3)}
TRACES = {1: [(3, 9), (2, 8), (1, 7)], BIG: [(BIG, -1)], 3: []}
STATES = {5: "STATE_RUNNABLE", 6: "STATE_SLEEPING"}
META = writer.metadata(EVENTS)
POOLS = writer.pools(SYMBOLS, CLASSES, METHODS, TRACES, STATES)
STACK = {
    1: "com.acme.Näh.run\t\t7\ncom.acme.Job$$Lambda.run\t\t8\nmalloc\tlibc.so.6\t0",
    BIG: "$Proxy.run\t\t0", 3: "[unknown]\t\t0", 4: "[unknown]\t\t0",
}  # fmt: skip
N, T = writer.number, writer.text


def execution(stack, state=5, context=0):
    note = random.choice((b"\0", b"\1", b"\2\7", T("ab"), b"\4\2\x41\x42", b"\5\1\xe9"))
    body = note + N(2) + bytes(10) + N(state) + bytes(4) + b"\xff" + N(context) + N(stack) + T("late")
    return writer.event(30, body)


def recording(*events, **options):
    return writer.chunk(META, POOLS, events, **options)


def stacks_of(parts):
    found = {part.metric: dict(zip(part.profile.texts, part.profile.values.tolist(), strict=True)) for part in parts}
    assert len(found) == len(parts)
    return found


def test_the_layout_is_what_the_chunk_says():
    events = [execution(1), execution(BIG), execution(1), execution(3), execution(4), execution(1, state=6)]
    (part,) = jfr.decode(recording(*events), rate=50)
    period = 20_000_000
    assert dict(zip(part.profile.texts, part.profile.values.tolist(), strict=True)) == {
        STACK[1]: [2, 2 * period], STACK[BIG]: [1, period], STACK[3]: [2, 2 * period],
    }  # fmt: skip


def test_every_kind_of_event():
    events = [
        writer.event(31, N(1) + N(25)), writer.event(36, N(1) + N(26)), writer.event(32, N(1000) + N(1)),
        writer.event(34, N(64) + N(1)), writer.event(35, N(1) + N(4096)),
    ]  # fmt: skip
    found = stacks_of(jfr.decode(recording(*events, rate=10)))
    expected = {"mutex": 2_500_000_000, "block": 2_600_000_000, "memory": 1000, "live": 64, "malloc": 4096}
    assert found == {name: {STACK[1]: [1, value]} for name, value in expected.items()}


def test_nothing_counts_twice():
    events = [
        writer.event(32, N(1000) + N(1)), writer.event(33, N(512) + N(1)), execution(1), writer.event(38, N(1) + N(7)),
    ]  # fmt: skip
    found = stacks_of(jfr.decode(recording(*events)))
    assert found == {"memory": {STACK[1]: [1, 512]}, "process_cpu": {STACK[1]: [1, 7]}}


def test_the_period_is_the_recordings_own():
    def setting(event, name, value):
        return writer.event(37, N(event) + T(name) + T(value))

    events = [setting(31, "period", "1 s"), setting(30, "period", "5 ms"), execution(1), execution(1, state=6)]
    (part,) = jfr.decode(recording(*events))
    assert part.profile.values.tolist() == [[1, 5_000_000]]
    events += [setting(0, "event", "wall"), setting(0, "interval", "7000000")]
    assert stacks_of(jfr.decode(recording(*events))) == {
        "process_cpu": {STACK[1]: [1, 7_000_000]},
        "wall": {STACK[1]: [2, 14_000_000]},
    }


def test_sets_of_labels_beyond_the_bound_are_kept_without_them(monkeypatch):
    monkeypatch.setattr(jfr, "MAX_GROUPS", 3)
    monkeypatch.setattr(jfr_labels, "contexts", lambda _data: {n: {"n": str(n)} for n in range(1, 9)})
    parts = jfr.decode(recording(*(execution(1, context=n) for n in range(9))))
    assert {key[1]: value[0] for key, value in sums(parts).items()} == {(): 7, (("n", "1"),): 1, (("n", "2"),): 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a recording", "no JFR recording"),
        (AGENT[:60], "cut short"),
        (recording(version=(3, 0)), "version 3.0"),
        (AGENT[:16] + bytes(8) + AGENT[24:], "not finished"),
        (AGENT + AGENT[:1000], "cut short"),
        (AGENT + b"\0", "no JFR recording"),
        (recording(rate=0), "clock"),
        (recording(writer.event(31, N(1) + N(-5))), "negative"),
        (recording(writer.event(31, N(1) + N(1 << 62)), writer.event(31, N(1) + N(1 << 62))), "too large"),
        (recording(writer.event(31, N(1))), "ends inside"),
        (gzip.compress(bytes(40 << 20), mtime=0), "larger than 32 MB"),
        (gzip.compress(AGENT, mtime=0)[:-9], "cut short"),
        (recording() * 65, "more than 64 chunks"),
        (writer.chunk(META, writer.event(1, N(0) * 3 + b"\1\1\x0e" + N(1) + N(9) + N(1 << 40)), []), "cut short"),
        (writer.chunk(META, writer.event(1, N(0) * 3 + b"\1\1\x0a" + N(1 << 30)), []), "cut short"),
        (writer.chunk(META, writer.event(1, N(0) * 3 + b"\1\1\x50\0"), []), "does not declare"),
    ],
)
def test_what_is_no_recording_is_refused_in_words(data, message):
    with pytest.raises(CorruptRecordError, match=message):
        jfr.decode(data)


def test_classes_that_contain_themselves_are_refused():
    loops = {**writer.CONSTANTS, "test.Pair": [("left", "test.Pair", ""), ("right", "test.Pair", "a")]}
    with pytest.raises(CorruptRecordError, match="too many fields"):
        jfr.decode(writer.chunk(writer.metadata(EVENTS, constants=loops), POOLS, [execution(1)]))


def test_fields_that_are_not_there_are_unknown():
    for name in ("method", "lineNumber"):
        frame = [(f"other{field}" if field == name else field, *rest) for field, *rest in writer.CONSTANTS[
            "jdk.types.StackFrame"]]  # fmt: skip
        meta = writer.metadata(EVENTS, constants={**writer.CONSTANTS, "jdk.types.StackFrame": frame})
        (part,) = jfr.decode(writer.chunk(meta, POOLS, [execution(1)]))
        (text,) = part.profile.texts
        found = stacks.split(text)
        assert len(found) == 3
        assert [frame.line for frame in found] == ([7, 8, 9] if name == "method" else [0, 0, 0])
        assert ({frame.function for frame in found} == {"[unknown]"}) == (name == "method")


def test_nothing_is_nothing():
    assert jfr.decode(b"") == []
    assert jfr.decode(recording()) == []


@pytest.mark.parametrize("data", [AGENT, WALL, recording(*[execution(1)] * 7)])
def test_a_recording_cut_anywhere_is_refused(data):
    for at in range(1, len(data), max(1, len(data) // 211)):
        with pytest.raises(CorruptRecordError):
            jfr.decode(data[:at])


def test_labels_cut_or_changed_are_read_or_refused():
    for at in range(len(LABELS)):
        for data in (LABELS[:at], LABELS[:at] + bytes([LABELS[at] ^ 0x55]) + LABELS[at + 1 :]):
            try:
                found = jfr_labels.contexts(data)
            except CorruptRecordError:
                continue
            assert all(isinstance(labels, dict) for labels in found.values())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([AGENT, WALL, recording(*[execution(1)] * 7)]), st.data())
def test_changed_bytes_are_read_or_refused(data, draw):
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        parts = jfr.decode(bytes(changed), LABELS)
    except CorruptRecordError:
        return
    for part in parts:
        assert part.profile.values.shape == (len(part.profile.texts), 2)
        assert part.profile.values.min() >= 0


@given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, (1 << 64) - 1), st.just((1 << 64) - 1))))
def test_numbers_in_bulk_are_what_the_cursor_reads(values):
    packed = [N(value) for value in values]
    data = b"".join(packed)
    ends = np.cumsum([len(one) for one in packed], dtype=np.int64)
    cursor = jfr_bytes.Cursor(data, 0, len(data))
    assert [cursor.number() for _ in values] == values
    view = np.frombuffer(data + b"\xff\xff", np.uint8)
    found, after = jfr_bytes.numbers(view)
    assert found.view(np.uint64).tolist() == values
    assert after.tolist() == ends.tolist()
    begins = ends - np.array([len(one) for one in packed], np.int64)
    found, after = jfr_bytes.numbers_at(view, begins, np.full(len(values), len(data)))
    assert found.view(np.uint64).tolist() == values
    assert after.tolist() == ends.tolist()
