"""What the publisher does before Kafka: splitting, counting, paying what is owed. Read back from the spool."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import publisher as module
from collectors.publisher import Publisher, compact
from collectors.spool import Spool
from runtime.settings import KafkaSettings
from streams.schema import codec, stack_columns
from streams.schema.messages import EVENT, LATENCY, PROFILE
from streams.schema.stack_columns import StackColumns

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def column(field, rows, rng):
    kind = field.type
    if pa.types.is_dictionary(kind):
        if pa.types.is_struct(kind.value_type):
            values = stack_columns.entries([f"main\t\t0\nf{i}\t\t{i}" for i in range(97)], range(97))
        else:
            values = pa.array([f"{field.name}{i}" for i in range(97)])
        return pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 97, rows), pa.int32()), values)
    if pa.types.is_list(kind):
        return pa.array([[int(n)] for n in rng.integers(1, 900, rows)], kind)
    if pa.types.is_map(kind):
        return pa.array([[("k", str(n))] for n in rng.integers(0, 9, rows)], kind)
    if pa.types.is_string(kind):
        return pa.array([str(n) for n in rng.integers(0, 9, rows)])
    return pa.array(rng.integers(1, 1000, rows)).cast(kind)


def batch_of(schema, rows, seed=1):
    rng = np.random.default_rng(seed)
    return pa.RecordBatch.from_arrays([column(field, rows, rng) for field in schema], schema=schema)


@pytest.fixture
def spool(tmp_path):
    one = Spool(tmp_path / "spool", 4 << 20)
    yield one
    one.close()


def waiting(spool):
    """Return every (interval, rows, message) that waits, oldest first."""
    taken = spool.take(10_000, 1 << 30)
    for entry, _message in taken:
        spool.ack(entry)
    return [(*codec.decode(m.headers, m.value)[1:], m) for _entry, m in taken]


def publisher(spool):
    return Publisher(KafkaSettings("127.0.0.1:1"), spool, "c1", "n1", "dev-")  # never started


@pytest.mark.parametrize("schema", [PROFILE, LATENCY, EVENT], ids=["profile", "latency", "event"])
def test_a_compacted_slice_has_the_same_rows_and_no_more_names_than_it_uses(schema):
    part = batch_of(schema, 2000).slice(311, 13)
    small = compact(part)
    small.validate(full=True)
    assert small.schema == part.schema
    assert small.to_pylist() == part.to_pylist()
    for array in small.columns:
        if isinstance(array, pa.DictionaryArray):
            assert len(array.dictionary) <= 13
            if pa.types.is_struct(array.dictionary.type):
                assert len(StackColumns.from_entries(array.dictionary).frames) <= 14  # main and 13 more
    assert compact(part.slice(0, 0)).num_rows == 0


@given(st.integers(0, 400), st.integers(0, 10**12), st.integers(0, 50), st.integers(1, 120), st.integers(1500, 9000))
@settings(max_examples=10, deadline=None)
def test_however_it_is_split_every_row_event_and_loss_travels_once(tmp_path_factory, rows, events, lost, most, size):
    spool = Spool(tmp_path_factory.mktemp("spool"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_ROWS", most)
        patch.setattr(module, "MAX_MESSAGE_BYTES", size)
        batch = batch_of(PROFILE, rows, rows)
        done = publisher(spool).publish("cpu", "profile", batch, START, START + SECOND, events, lost)
    found = waiting(spool)
    spool.close()
    assert len(found) == done.messages >= 1
    assert [i.sequence for i, _, _ in found] == list(range(len(found)))
    assert sum(i.events for i, _, _ in found) == events
    assert [i.lost for i, _, _ in found] == [lost] + [0] * (len(found) - 1)
    assert sum(m.events for _, _, m in found) == events + lost
    assert all(b.num_rows <= most and (len(m.value) <= size or b.num_rows <= 1) for _, b, m in found)
    assert [row for _, b, _ in found for row in b.to_pylist()] == batch.to_pylist()
    assert (done.rows, done.lost, done.bytes) == (rows, lost, sum(len(m.value) for _, _, m in found))


def test_headers_and_key_say_who_and_where(spool):
    sender = publisher(spool)
    sender.publish("cpu", "profile", batch_of(PROFILE, 3), START, START + SECOND, 30)
    sender.publish("exec", "event", batch_of(EVENT, 2), START, START + SECOND, 2)
    sender.publish("cpu", "profile", batch_of(PROFILE, 0), START + SECOND, START + 2 * SECOND, 0, 4)
    (first, _, one), (second, _, two), (third, rows, _) = waiting(spool)
    assert (one.topic, two.topic) == ("dev-perfstream.raw.profiles", "dev-perfstream.raw.events")
    assert one.key == b"c1/n1"
    assert [(i.collector, i.sequence) for i in (first, second, third)] == [("cpu", 0), ("exec", 0), ("cpu", 1)]
    assert {i.producer for i in (first, second, third)} == {sender.producer}
    assert (third.start_ns, third.end_ns, third.lost, rows.num_rows) == (START + SECOND, START + 2 * SECOND, 4, 0)


def test_what_the_spool_dropped_is_reported_once_by_the_next_message_of_its_collector(tmp_path):
    spool = Spool(tmp_path / "small", 64 * 1024)
    sender = publisher(spool)
    given_events = lost = 0
    for number in range(80):
        sender.publish("cpu", "profile", batch_of(PROFILE, 300, number), START, START + SECOND, 1009, number)
        given_events, lost = given_events + 1009, lost + number
    assert spool.loads().dropped_events > 0
    found = waiting(spool)
    sender.publish("exec", "event", batch_of(EVENT, 1), START, START + SECOND, 1)
    sender.publish("cpu", "profile", batch_of(PROFILE, 0), START, START + SECOND, 0)
    sender.publish("cpu", "profile", batch_of(PROFILE, 0), START, START + SECOND, 0)
    event, paying, after = waiting(spool)
    assert event[0].lost == 0
    assert after[0].lost == 0
    assert sum(i.events + i.lost for i, _, _ in found) + paying[0].lost == given_events + lost
    spool.close()


def test_closing_one_that_never_started_is_no_error(spool):
    sender = publisher(spool)
    assert sender.close(0.1)
    sender.publish("cpu", "profile", batch_of(PROFILE, 1), START, START + SECOND, 1)
    assert not sender.close(0.1)
