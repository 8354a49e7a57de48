"""Round trips, and that decoding is total: whatever the bytes, a valid batch or a ``SchemaError``."""

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.schema import codec, stack_columns, stacks, text_bounds
from streams.schema.errors import CorruptRecordError, SchemaError, UnknownVersionError
from streams.schema.ipc_bounds import inflated_bytes
from streams.schema.messages import EVENT, LATENCY, PROFILE, RELEASED, SCHEMAS, STACK, TEXT, Interval

INTERVAL = Interval("cpu", "c1", "n1", "p1", 7, 1_000, 2_000, events=3, lost=2)


def profile_batch(values=(10, 20, 30)):
    frames = ["main\tm.c\t1\nwork\tm.c\t2", "main\tm.c\t1"]
    stack = stack_columns.entries(frames)
    n = len(values)
    text = pa.array(["x"] * n).dictionary_encode().cast(TEXT)
    data = dict.fromkeys(PROFILE.names, text)
    data |= {
        "time_ns": pa.array([1_000] * n, pa.int64()),
        "value": pa.array(values, pa.int64()),
        "period": pa.array([10] * n, pa.int64()),
        "stack": pa.DictionaryArray.from_arrays(pa.array([i % 2 for i in range(n)], pa.int32()), stack),
    }
    return pa.RecordBatch.from_arrays([data[name] for name in PROFILE.names], schema=PROFILE)


def test_round_trip_keeps_rows_headers_and_stack_ids():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    name, interval, batch = codec.decode(headers, value)
    assert name == "profile"
    assert interval == replace(INTERVAL, rows=3, version=2)
    assert batch.equals(profile_batch())
    assert batch.column("stack").dictionary.field("id")[0].as_py() == stacks.stack_id("main\tm.c\t1\nwork\tm.c\t2")


def test_unknown_version_and_schema_are_named():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    for wrong in (b"profile/99", b"nothing/1"):
        with pytest.raises(UnknownVersionError, match="never released"):
            codec.decode([("schema", wrong), *headers[1:]], value)


def test_any_truncation_and_any_flipped_byte_is_a_schema_error_or_a_valid_batch():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    for cut in range(0, len(value) - 8, 7):
        with pytest.raises(CorruptRecordError):
            codec.decode(headers, value[:cut])
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(value), 300):
        broken = bytearray(value)
        broken[at] ^= 1 << int(rng.integers(8))
        try:
            codec.decode(headers, bytes(broken))
        except CorruptRecordError:
            continue


def test_row_count_must_agree_with_the_headers():
    value, headers = codec.encode("profile", profile_batch(), INTERVAL)
    wrong = [(k, b"4" if k == "rows" else v) for k, v in headers]
    with pytest.raises(CorruptRecordError, match="3 rows where"):
        codec.decode(wrong, value)


def decodes(headers, value, expected=""):
    """Whether it decodes; anything but a SchemaError fails the test."""
    try:
        _, interval, batch = codec.decode(headers, value, expected)
    except SchemaError:
        return False
    batch.validate(full=True)
    assert batch.num_rows == interval.rows
    return True


VALUE, HEADERS = codec.encode("profile", profile_batch(), INTERVAL)
NAMES = [name for name, _ in HEADERS]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(VALUE)), st.booleans())
def test_random_bytes_anywhere_in_a_record_are_a_schema_error_or_a_batch(noise, at, insert):
    decodes(HEADERS, VALUE[:at] + noise + VALUE[at if insert else at + len(noise) :])
    assert not decodes(HEADERS, noise)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.one_of(st.none(), st.binary(max_size=40), st.integers().map(lambda n: b"%d" % n)))
def test_any_header_is_a_schema_error_or_a_number_that_fits_the_tables(name, text):
    headers = [(k, text if k == name else v) for k, v in HEADERS]
    if decodes(headers, VALUE):
        _, interval = codec.decode_headers(headers)
        for number in (interval.sequence, interval.events, interval.lost):
            assert 0 <= number < 2**63
        for number in (interval.start_ns, interval.end_ns):
            assert abs(number) < 2**63


@pytest.mark.parametrize("name", ["sequence", "events", "lost", "start_ns", "end_ns"])
def test_a_number_beyond_63_bits_or_below_zero_is_corrupt(name):
    below = b"-9223372036854775809" if name.endswith("_ns") else b"-1"
    for number in (b"9223372036854775808", below, b"1e3", b"", b"9" * 5000):
        assert not decodes([(k, number if k == name else v) for k, v in HEADERS], VALUE)
    assert not decodes([h for h in HEADERS if h[0] != name], VALUE)


def test_a_record_of_another_topic_is_corrupt():
    assert decodes(HEADERS, VALUE, "profile")
    with pytest.raises(CorruptRecordError, match="a profile record where latency belongs"):
        codec.decode(HEADERS, VALUE, "latency")


def written(batch, schema="profile"):
    """A record as a producer would send it that does not look at what it writes."""
    _, headers = codec.encode("profile", profile_batch((1,) * batch.num_rows), INTERVAL)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return [
        (k, f"{schema}/{max(RELEASED[schema])}".encode() if k == "schema" else v) for k, v in headers
    ], sink.getvalue().to_pybytes()


def replaced(batch, name, column):
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, name, column)


def test_a_null_at_any_depth_is_corrupt():
    batch = profile_batch()
    assert decodes(*written(batch))
    number = pa.array([1, None, 3], pa.int64())
    name = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array(["a", None])).cast(TEXT)
    stack = batch.column("stack")
    ids, frames = stack.dictionary.field("id"), stack.dictionary.field("frames")
    codes = frames.values
    holed = pa.DictionaryArray.from_arrays(codes.indices, pa.array([None, *codes.dictionary.to_pylist()[1:]]))
    holes = pa.array([None, *codes.indices.to_pylist()[1:]], pa.int32())
    gaps = pa.DictionaryArray.from_arrays(holes, codes.dictionary)
    broken = [(pa.array([1, None], pa.uint64()), frames)]
    broken += [(ids, pa.ListArray.from_arrays(frames.offsets, values)) for values in (holed, gaps)]
    broken += [(ids, pa.ListArray.from_arrays(pa.array([0, None, 3], pa.int32()), codes))]
    for column, values in (
        ("value", number),
        ("service", name),
        *(("stack", pa.DictionaryArray.from_arrays(stack.indices, stack_struct(*parts))) for parts in broken),
    ):
        with pytest.raises(CorruptRecordError, match="holds nulls"):
            codec.decode(*written(replaced(batch, column, values)))


def stack_struct(ids, frames):
    return pa.StructArray.from_arrays([ids, frames.cast(STACK.field("frames").type)], fields=list(STACK))


def latency_batch(buckets=((1, 975),), counts=((3, 4),)):
    n = len(buckets)
    data = dict.fromkeys(LATENCY.names, pa.array(["x"] * n).dictionary_encode().cast(TEXT))
    data |= {
        "time_ns": pa.array([1_000] * n, pa.int64()),
        "buckets": pa.array(buckets, pa.list_(pa.uint16())),
        "counts": pa.array(counts, pa.list_(pa.uint64())),
    }
    data |= {name: pa.array([7] * n, pa.uint64()) for name in ("count", "sum_ns", "max_ns")}
    data["period"] = pa.array([1] * n, pa.uint32())
    return pa.RecordBatch.from_arrays([data[name] for name in LATENCY.names], schema=LATENCY)


def test_a_histogram_that_contradicts_itself_is_corrupt():
    assert decodes(*written(latency_batch(), "latency"))
    assert decodes(*written(latency_batch((), ()), "latency"))
    for wrong, why in (
        (latency_batch(((1, 2),), ((3,),)), "more buckets"),
        (latency_batch(((1, 976),)), "beyond 975"),
        (latency_batch(((1, None),)), "nulls"),
    ):
        with pytest.raises(CorruptRecordError, match=why):
            codec.decode(*written(wrong, "latency"))


def test_times_are_what_the_clock_said_and_windows_are_none_before_1970():
    for time_ns in (-1, -(2**63), 2**63 - 1):
        batch = replaced(profile_batch(), "time_ns", pa.array([1, time_ns, 3], pa.int64()))
        assert decodes(*written(batch))
        assert decodes([(k, b"-5" if k == "start_ns" else v) for k, v in HEADERS], VALUE)
    assert decodes(*written(hotspot_batch(window_start_ns=[0, 1]), "hotspot"))
    assert not decodes(*written(hotspot_batch(window_start_ns=[0, -1]), "hotspot"))


def hotspot_batch(**columns):
    data = {
        f.name: pa.array(["x", "y"]).dictionary_encode().cast(TEXT) if f.type == TEXT else pa.array([1, 2], f.type)
        for f in SCHEMAS["hotspot"]
    }
    data |= {name: pa.array(values, data[name].type) for name, values in columns.items()}
    return pa.RecordBatch.from_arrays(list(data.values()), schema=SCHEMAS["hotspot"])


@pytest.mark.parametrize("name", ["value", "period"])
def test_a_negative_count_is_corrupt(name):
    assert decodes(*written(replaced(profile_batch(), name, pa.array([0, 1, 2**63 - 1], pa.int64()))))
    with pytest.raises(CorruptRecordError, match=f"'{name}' holds a negative"):
        codec.decode(*written(replaced(profile_batch(), name, pa.array([0, -1, 3], pa.int64()))))


@pytest.mark.parametrize("name", ["count", "sum_ns", "max_ns", "counts"])
def test_a_count_that_was_negative_before_it_was_unsigned_is_corrupt(name):
    for number in (2**63 - 1, 2**63, 2**64 - 1):
        if name == "counts":
            batch = latency_batch(((1, 2),), ((3, number),))
        else:
            batch = replaced(latency_batch(), name, pa.array([number], pa.uint64()))
        assert decodes(*written(batch, "latency")) == (number < 2**63)


def event_batch(**columns):
    data = {
        f.name: pa.array(["x"]).dictionary_encode().cast(TEXT)
        if f.type == TEXT
        else pa.array([[]] if pa.types.is_map(f.type) else ["d"] if f.name == "detail" else [1], f.type)
        for f in EVENT
    }
    return pa.RecordBatch.from_arrays(list((data | columns).values()), schema=EVENT)


def texts(*values):
    return pa.array(values).dictionary_encode().cast(TEXT)


def attributes(pairs):
    return pa.array([pairs], pa.map_(pa.string(), pa.string()))


def stack_of(frames):
    one = stack_columns.entries([frames], [5])
    return pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), one)


@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (lambda n: (event_batch(comm=texts("x" * n)), "event"), text_bounds.MAX_TEXT),
        (lambda n: (event_batch(service=texts("é" * (n // 2) + "x" * (n % 2))), "event"), text_bounds.MAX_TEXT),
        (lambda n: (event_batch(detail=pa.array(["x" * n])), "event"), text_bounds.MAX_VALUE),
        (lambda n: (event_batch(attributes=attributes([("k" * n, "v")])), "event"), text_bounds.MAX_TEXT),
        (lambda n: (event_batch(attributes=attributes([("k", "v" * n)])), "event"), text_bounds.MAX_VALUE),
        (
            lambda n: (event_batch(attributes=attributes([(str(i), "") for i in range(n)])), "event"),
            text_bounds.MAX_ATTRIBUTES,
        ),
        (lambda n: (replaced(profile_batch((1,)), "stack", stack_of("f" * n)), "profile"), stacks.MAX_STACK_BYTES),
        (lambda n: (hotspot_batch() if n <= 4096 else replaced(hotspot_batch(), "function", texts("f", "f" * n)),
                    "hotspot"), text_bounds.MAX_TEXT),
    ],
)  # fmt: skip
def test_an_overlong_text_is_corrupt_and_one_at_the_bound_is_not(make, bound):
    assert decodes(*written(*make(bound)))
    with pytest.raises(CorruptRecordError, match=r"longer than|more than"):
        codec.decode(*written(*make(bound + 1)))


def test_a_stack_that_is_none_is_corrupt(monkeypatch):
    def record(*listed):
        texts = pa.array([list(frames) for frames in listed], pa.list_(pa.string()))
        codes = texts.flatten().dictionary_encode()
        entries = stack_struct(
            pa.array(range(len(listed)), pa.uint64()), pa.ListArray.from_arrays(texts.offsets, codes)
        )
        column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), entries)
        return written(replaced(profile_batch((1,)), "stack", column))

    assert decodes(*record(["a"], ["a", "b"]))
    for listed, why in (([["a"], []], "no frames"), ([[]], "no frames"), ([["a\n\t0"]], "line feed")):
        with pytest.raises(CorruptRecordError, match=why):
            codec.decode(*record(*listed))
    monkeypatch.setattr(text_bounds, "MAX_STACKS_BYTES", 5)
    assert decodes(*record(["aa"], ["aa", ""]))
    with pytest.raises(CorruptRecordError, match="the stacks are longer"):
        codec.decode(*record(["aa"], ["aa", "", ""]))


def test_an_overlong_header_is_corrupt():
    for name in ("collector", "cluster", "node", "producer"):
        assert decodes([(k, b"x" * 4096 if k == name else v) for k, v in HEADERS], VALUE)
        assert not decodes([(k, b"x" * 4097 if k == name else v) for k, v in HEADERS], VALUE)


def test_a_writer_cuts_what_a_reader_would_refuse():
    batch = event_batch(comm=texts("é" * 9_000), detail=pa.array(["d" * 70_000]))
    _, _, read = codec.decode(*reversed(codec.encode("event", batch, INTERVAL)))
    assert read.column("comm").to_pylist() == ["é" * 1024]
    assert read.column("detail").to_pylist() == ["d" * 16_384]
    assert read.column("service").to_pylist() == ["x"]


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_an_empty_batch_of_each_schema_survives(schema):
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in SCHEMAS[schema]], schema=SCHEMAS[schema])
    value, headers = codec.encode(schema, empty, INTERVAL)
    name, interval, batch = codec.decode(headers, value, schema)
    assert (name, interval.rows, batch.schema) == (schema, 0, SCHEMAS[schema])


def test_a_missing_column_a_wrong_type_and_a_second_batch_are_corrupt():
    batch = profile_batch()
    assert not decodes(*written(batch.drop_columns(["value"])))
    assert not decodes(*written(replaced(batch, "value", pa.array([1.0, 2.0, 3.0]))))
    headers, _ = written(batch)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    assert not decodes(headers, sink.getvalue().to_pybytes())


def test_a_column_that_nobody_knows_is_ignored():
    batch = profile_batch().append_column("newer", pa.array([1, 2, 3]))
    _, _, read = codec.decode(*written(batch))
    assert read.equals(profile_batch())


def test_a_latency_message_from_before_sampling_counts_every_event():
    batch = latency_batch()
    old = pa.RecordBatch.from_arrays(
        [batch.column(n) for n in LATENCY.names if n != "period"],
        schema=pa.schema([f for f in LATENCY if f.name != "period"]),
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, old.schema) as writer:
        writer.write_batch(old)
    headers, _ = written(batch, "latency")
    _, _, decoded = codec.decode(headers, sink.getvalue().to_pybytes())
    assert decoded.column("period").to_pylist() == [1]
    assert decoded.drop_columns(["period"]).equals(old)


def test_many_mutations_of_a_record_end_in_an_error_or_a_batch():
    """Offsets that point anywhere once ended the process: flips, cuts and insertions at every place, by seed."""
    chance = random.Random(11)
    latency_headers, latency_value = written(latency_batch(), "latency")
    for _ in range(7_919):
        headers, value = chance.choice([(HEADERS, VALUE), (latency_headers, latency_value)])
        broken = bytearray(value)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(broken))
            how = chance.random()
            if how < 0.6:
                broken[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            elif how < 0.8:
                broken[at : at + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\0\0\0\x80"])
            else:
                del broken[at : at + chance.randint(1, 8)]
        decodes(headers, bytes(broken))


def test_a_bomb_is_refused_before_it_is_inflated(monkeypatch):
    rows = 100_000
    zeros = profile_batch((1,) * rows)
    value, headers = codec.encode("profile", zeros, replace(INTERVAL, rows=rows))
    size, counted = inflated_bytes(value)
    assert counted == rows
    assert size >= zeros.get_total_buffer_size() > 20 * len(value)
    monkeypatch.setattr(codec, "MAX_DECODED_BYTES", size - 1)
    monkeypatch.setattr(codec.pa.ipc, "open_stream", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(CorruptRecordError, match="more than the bound"):
        codec.decode(headers, value)


def test_a_stream_without_a_batch_is_corrupt():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PROFILE):
        pass
    with pytest.raises(CorruptRecordError, match="not a valid profile"):
        codec.decode(HEADERS, sink.getvalue().to_pybytes())


def test_stray_offsets_of_nothing_are_not_followed():
    """Arrow validates no offsets of an empty column; following them ended the process."""

    def stray(kind, child):
        offsets = pa.py_buffer(np.array([1, 1], np.int32))
        return pa.Array.from_buffers(kind, 0, [None, offsets], children=[child])

    empty = pa.RecordBatch.from_pylist([], schema=LATENCY)
    for name in ("buckets", "counts"):
        kind = LATENCY.field(name).type
        batch = replaced(empty, name, stray(kind, pa.array([], kind.value_type)))
        assert decodes(*written(batch, "latency"))


def test_attributes_of_no_row_are_read():
    batch = event_batch(attributes=attributes([]))
    _, _, read = codec.decode(*written(batch, "event"))
    assert read.column("attributes").to_pylist() == [[]]
    assert read.equals(batch)
