"""The OTLP decoder against a plain reading of the same messages by OpenTelemetry's own classes, and damaged ones."""

import gzip
from collections import Counter

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest

from collectors.ingest import labels, naming, otlp
from collectors.scrapers import pprof
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError

LINES = [(), ((1, 10),), ((2, 20), (1, 11)), ((3, 0),), ((2, 21),)]
"""For each location its (function, line), innermost first; the first has none."""


def request(profiles, resources=None):
    """Build a request. ``profiles``: (resource, type, unit, period, [(stack, values, time stamps)])."""
    message = ExportProfilesServiceRequest()
    table = message.dictionary
    strings = [""]

    def text(value):
        if value not in strings:
            strings.append(value)
        return strings.index(value)

    table.mapping_table.add()
    table.mapping_table.add(filename_strindex=text("/usr/lib/libc.so.6"), memory_start=4096)
    table.function_table.add()
    for name, file in (("Main", "main.java"), ("work", "work.py"), ("", "")):
        table.function_table.add(name_strindex=text(name), filename_strindex=text(file))
    for at, lines in enumerate(LINES):
        location = table.location_table.add(mapping_index=int(at in (0, 3)), address=at * 16)
        for function, line in lines:
            location.lines.add(function_index=function, line=line)
    for places in ((), (1,), (2, 1), (0, 4, 1), (3,), (4, 4, 4, 1)):
        table.stack_table.add(location_indices=places)
    table.attribute_table.add()
    for given_labels in resources or [{"service.name": "shop"}]:
        one = message.resource_profiles.add()
        for key, value in given_labels.items():
            pair = one.resource.attributes.add(key=key)
            if isinstance(value, int):
                pair.value.int_value = value
            else:
                pair.value.string_value = value
        one.scope_profiles.add()
    for resource, kind, unit, period, samples in profiles:
        profile = message.resource_profiles[resource].scope_profiles[0].profiles.add()
        profile.sample_type.type_strindex, profile.sample_type.unit_strindex = text(kind), text(unit)
        profile.period_type.type_strindex, profile.period_type.unit_strindex = text("cpu"), text("nanoseconds")
        profile.period, profile.time_unix_nano, profile.duration_nano = period, 1_700_000_000_000_000_007, 5_000_000_000
        for stack, values, stamps in samples:
            profile.samples.add(stack_index=stack, values=values, timestamps_unix_nano=stamps)
    table.string_table.extend(strings)
    return message


def plainly(message):
    """Return, for each profile with samples, {stack text: value} by the messages themselves."""
    table = message.dictionary
    found = []
    for resource in message.resource_profiles:
        for scope in resource.scope_profiles:
            for profile in scope.profiles:
                sums = Counter()
                for sample in profile.samples:
                    frames = []
                    for at in table.stack_table[sample.stack_index].location_indices:
                        location = table.location_table[at]
                        module = table.string_table[table.mapping_table[location.mapping_index].filename_strindex]
                        for line in location.lines or [None]:
                            function = table.function_table[line.function_index if line else 0]
                            name = table.string_table[function.name_strindex]
                            name = name or (f"[{module.rpartition('/')[2]}]" if module else "")
                            file = table.string_table[function.filename_strindex]
                            frames.append(stacks.frame_text(name, file, line.line if line else 0))
                    text = stacks.join(frames[::-1]) or stacks.frame_text("")
                    sums[text] += sum(sample.values) if sample.values else len(sample.timestamps_unix_nano)
                if profile.samples:
                    found.append(dict(sums))
    return found


def ours(series):
    return [dict(zip(one.profile.texts, one.profile.values[:, 0].tolist(), strict=True)) for one in series]


STAMPS = [(1, [], [5, 6, 7]), (2, [], [8]), (3, [], [9, 9]), (1, [], [4]), (4, [], [1]), (5, [], [1, 2]), (0, [], [3])]
SAMPLE = request([(0, "samples", "count", 50_000_000, STAMPS)])


def test_samples_without_values_count_their_time_stamps():
    (one,) = otlp.decode(SAMPLE.SerializeToString())
    assert ours([one]) == plainly(SAMPLE)
    assert (one.profile.types, one.profile.units, one.profile.samples) == (("samples",), ("count",), 11)
    assert (one.profile.time_ns, one.profile.duration_ns) == (1_700_000_000_000_000_007, 5_000_000_000)
    columns = naming.columns(one)
    assert (columns.types, columns.units, columns.periods) == (("process_cpu",), ("nanoseconds",), (50_000_000,))
    assert int(columns.values.sum()) == 11 * 50_000_000
    assert "Main\tmain.java\t10" in one.profile.texts
    assert "[libc.so.6]\t\t0\nMain\tmain.java\t10" not in one.profile.texts  # the leaf is last
    assert "[libc.so.6]\t\t0" in one.profile.texts


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_json_is_read_like_protobuf(content_type):
    text = json_format.MessageToJson(SAMPLE).replace('"samples":', '"somethingNew": 1, "samples":', 1)
    (one,) = otlp.decode(text.encode(), content_type)
    assert ours([one]) == plainly(SAMPLE)
    assert otlp.answer(content_type) == ("application/json", b"{}")
    assert otlp.answer("application/x-protobuf") == ("application/x-protobuf", b"")
    assert ours(otlp.decode(gzip.compress(SAMPLE.SerializeToString()))) == plainly(SAMPLE)


@pytest.mark.parametrize("name", ["wo\trk", "\n", "x" * 3000, "n\x7f"])
def test_names_that_would_break_a_stack_are_mended(name):
    message = request([(0, "samples", "count", 10, STAMPS)])
    message.dictionary.string_table[message.dictionary.function_table[2].name_strindex] = name
    assert ours(otlp.decode(message.SerializeToString())) == plainly(message)
    message = request([(0, "samples", "count", 10, STAMPS)])
    message.dictionary.location_table[1].lines[0].line = -3
    assert ours(otlp.decode(message.SerializeToString())) == plainly(message)


def test_resources_are_owners():
    resources = [
        {"service.name": "shop", "service.version": "v1", "k8s.namespace.name": "web", "k8s.pod.name": "shop-1",
         "k8s.container.name": "main", "host.name": "n1", "process.pid": 7, "other": "x"},
        {"process.executable.path": "/usr/bin/python3.11"}, {"process.executable.name": "java"}, {},
        {"service.name": "idle"},
    ]  # fmt: skip
    message = request([(n, "samples", "count", 10, [(1, [n + 1], [])]) for n in (3, 0, 1, 2)], resources)
    found = otlp.decode(message.SerializeToString())
    assert ours(found) == plainly(message)
    whose = [labels.identity(one.labels, "c", "here") for one in found]
    assert [one["service"] for one in whose] == ["shop", "python3.11", "java", "unknown_service"]
    assert whose[0] == {
        "cluster": "c", "node": "n1", "namespace": "web", "pod": "shop-1", "container": "main", "service": "shop",
        "version": "v1",
    }  # fmt: skip
    assert [one.profile.values.tolist() for one in found] == [[[1]], [[2]], [[3]], [[4]]]


def test_attributes_may_stand_in_the_string_table():
    message = request([(0, "samples", "count", 10, [(1, [1], [])])], [{}])
    message.dictionary.string_table.extend(["service.name", "far"])
    size = len(message.dictionary.string_table)
    pair = message.resource_profiles[0].resource.attributes.add(key_strindex=size - 2)
    pair.value.string_value_strindex = size - 1
    assert [one.labels for one in otlp.decode(message.SerializeToString())] == [{"service.name": "far"}]


def test_types_have_the_names_that_rows_carry_and_count_once():
    one = [(1, [3], [])]
    message = request(
        [
            (0, "samples", "count", 10, one), (0, "cpu", "nanoseconds", 10, one), (0, "events", "nanoseconds", 0, one),
            (0, "inuse_space", "bytes", 0, one), (1, "samples", "count", 10, one),
        ],
        [{"service.name": "a"}, {"service.name": "b"}],
    )  # fmt: skip
    found = otlp.decode(message.SerializeToString())
    names = [(one.labels["service.name"], *naming.columns(one).types) for one in found]
    assert names == [("a", "process_cpu"), ("a", "offcpu"), ("a", "inuse_space"), ("b", "process_cpu")]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from(["samples", "alloc_space"]), st.just("count"), st.integers(0, 100),
            st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 1 << 40), max_size=3),
                               st.lists(st.integers(0, 1 << 63), max_size=3)), max_size=8),
        ), max_size=5,
    )
)  # fmt: skip
def test_any_request_is_read_as_its_messages_say(profiles):
    profiles.sort(key=lambda one: one[0])
    message = request(profiles, [{"service.name": "a"}, {"service.name": "b"}])
    assert ours(otlp.decode(message.SerializeToString())) == plainly(message)


def changed(**tables):
    message = request([(0, "samples", "count", 10, [(1, [1], [])])])
    for name, (at, field, value) in tables.items():
        setattr(getattr(message.dictionary, f"{name}_table")[at], field, value)
    return message


def test_places_outside_of_their_tables_are_refused():
    bad = [changed(location=(1, "mapping_index", 9)), changed(function=(1, "name_strindex", 99))]
    for at, value in ((1, 77), (1, -1)):
        bad.append(changed())
        bad[-1].dictionary.stack_table[at].location_indices[0] = value
        bad.append(changed())
        bad[-1].resource_profiles[0].scope_profiles[0].profiles[0].samples[0].stack_index = value
        bad.append(changed())
        bad[-1].resource_profiles[0].scope_profiles[0].profiles[0].sample_type.type_strindex = value
        bad.append(changed())
        bad[-1].dictionary.location_table[1].lines[0].function_index = value
    bad.append(changed())
    del bad[-1].dictionary.string_table[:]
    bad.append(changed())
    del bad[-1].dictionary.location_table[:]
    for message in bad:
        with pytest.raises(CorruptRecordError, match="outside of its table"):
            otlp.decode(message.SerializeToString())


@pytest.mark.parametrize(
    ("data", "content_type", "message"),
    [
        (b"<html>", otlp.PROTO, "no OTLP profiles"), (b"{", otlp.JSON, "no OTLP profiles in JSON"),
        (b"[1]", otlp.JSON, "no OTLP profiles in JSON"), (b'{"a":' * 5000, otlp.JSON, "no OTLP profiles in JSON"),
        (b'{"dictionary": {"stringTable": [1]}}', otlp.JSON, "no OTLP profiles in JSON"),
        (b"\xff\xfe", otlp.JSON, "no OTLP profiles in JSON"),
        (gzip.compress(bytes(40 << 20), mtime=0), otlp.PROTO, "larger than 32 MB"),
        (b" " * (9 << 20), otlp.JSON, "larger than 8 MB"),
        (SAMPLE.SerializeToString() * 2, otlp.PROTO, "more than one dictionary"),
        (request([(0, "", "count", 1, [(1, [1], [])])]).SerializeToString(), otlp.PROTO, "no sample type"),
        (request([(0, "x", "count", 1, [(1, [1 << 62], [])] * 3)]).SerializeToString(), otlp.PROTO, "too large"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_words(data, content_type, message):
    with pytest.raises(CorruptRecordError, match=message):
        otlp.decode(data, content_type)


def test_a_field_of_another_width_is_not_there():
    # Field 6 (the period) as eight bytes instead of a varint.
    message = request([(0, "samples", "count", 0, [(1, [1], [])])])
    scope = message.resource_profiles[0].scope_profiles[0]
    profile = scope.profiles[0].SerializeToString() + b"\x31" + bytes(8)
    del scope.profiles[:]

    def wrapped(field, body):
        return bytes([field << 3 | 2, len(body)]) + body

    dictionary = message.dictionary.SerializeToString()
    head = bytes([0x12]) + bytes([len(dictionary) & 0x7F | 0x80, len(dictionary) >> 7]) + dictionary
    (one,) = otlp.decode(wrapped(1, wrapped(2, wrapped(2, profile))) + head)
    assert one.profile.period == 0
    assert one.profile.values.tolist() == [[1]]


def test_nothing_is_nothing():
    assert otlp.decode(b"") == []
    assert otlp.decode(b"{}", otlp.JSON) == []
    assert otlp.decode(request([(0, "samples", "count", 1, [])]).SerializeToString()) == []


def test_bounds(monkeypatch):
    monkeypatch.setattr(otlp, "MAX_SAMPLES", 6)
    with pytest.raises(CorruptRecordError, match="more than 6 samples"):
        otlp.decode(SAMPLE.SerializeToString())
    monkeypatch.setattr(otlp, "MAX_PROFILES", 0)
    with pytest.raises(CorruptRecordError, match="more than 0 profiles"):
        otlp.decode(SAMPLE.SerializeToString())


def test_a_request_cut_anywhere_is_read_or_refused():
    data = SAMPLE.SerializeToString()
    for at in range(len(data)):
        try:
            otlp.decode(data[:at])
        except CorruptRecordError:
            continue


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_are_read_or_refused(draw):
    data = bytearray(SAMPLE.SerializeToString())
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        found = otlp.decode(bytes(data))
    except CorruptRecordError:
        return
    for one in found:
        assert isinstance(one.profile, pprof.Profile)
        assert one.profile.values.shape == (len(one.profile.texts), 1)
        assert one.profile.values.dtype == np.int64
