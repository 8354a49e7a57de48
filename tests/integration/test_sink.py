"""The sink against a real broker and a real store: every row once, whatever dies."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError

from deploy.broker import free_port
from runtime.settings import ClickHouseSettings
from sinks import tables
from sinks.client import connect
from sinks.migrate import migrate
from streams import topics_admin
from streams.schema import codec, stack_columns
from streams.schema.messages import (
    EVENT,
    HOTSPOT,
    LATENCY,
    LATENCY_WINDOW,
    PROFILE,
    TEXT,
    Interval,
)
from streams.schema.stacks import frame_text, join, stack_id
from streams.schema.topics import (
    ALL,
    DEAD_LETTERS,
    HOTSPOTS,
    LATENCY_WINDOWS,
    RAW,
    RAW_EVENTS,
    RAW_LATENCIES,
    RAW_PROFILES,
    RESULTS,
)

pytestmark = pytest.mark.services

SECOND = 1_000_000_000
STACKS = [join([frame_text("main", "main.c", 1), frame_text(f"work_{i}", "work.c", i)]) for i in range(300)]


def text(values):
    return pa.array(values, pa.string()).dictionary_encode().cast(TEXT)


def workload(n, services):
    return [
        text([f"ns{s}" for s in services]),
        text([f"pod-{s}" for s in services]),
        text(["app"] * n),
        text([f"service-{s}" for s in services]),
        text(["v1"] * n),
    ]


def profile(rng, start_ns, n=200, days=1):
    services = rng.integers(0, 5, n)
    at = rng.integers(0, len(STACKS), n)
    stacks = stack_columns.entries(STACKS)
    times = start_ns - rng.integers(0, days, n) * 86400 * SECOND
    return pa.RecordBatch.from_arrays(
        [
            pa.array(times, pa.int64()),
            *workload(n, services),
            text(["cpu"] * n),
            text(["nanoseconds"] * n),
            pa.DictionaryArray.from_arrays(pa.array(at, pa.int32()), stacks),
            pa.array(rng.integers(1, 9, n) * 20_000_000, pa.int64()),
            pa.array([20_000_000] * n, pa.int64()),
        ],
        schema=PROFILE,
    )


def latency(rng, start_ns, n=5):
    lists = [[1, 20], [30]] * n
    return pa.RecordBatch.from_arrays(
        [
            pa.array([start_ns] * n, pa.int64()),
            *workload(n, range(n)),
            text(["runqlat"] * n),
            text([""] * n),
            pa.array(lists[:n], pa.list_(pa.uint16())),
            pa.array(lists[:n], pa.list_(pa.uint64())),
            *[pa.array([7] * n, pa.uint64())] * 3,
            pa.array([1] * n, pa.uint32()),
        ],
        schema=LATENCY,
    )


def events(rng, start_ns, n=50):
    number = pa.array(rng.integers(1, 10_000, n), pa.uint32())
    return pa.RecordBatch.from_arrays(
        [
            pa.array(start_ns + np.arange(n) * 1_000_001, pa.int64()),
            *workload(n, rng.integers(0, 5, n)),
            text(["exec"] * n),
            number,
            number,
            number,
            text([f"comm{i % 3}" for i in range(n)]),
            pa.array([-2] * n, pa.int32()),
            pa.array(rng.integers(0, 10**9, n), pa.uint64()),
            pa.array([f"/bin/thing{i}" for i in range(n)]),
            pa.array([[("k", str(i))] for i in range(n)], pa.map_(pa.string(), pa.string())),
        ],
        schema=EVENT,
    )


def _window(start_ns, n, last_offset):
    return [
        pa.array([start_ns // (10 * SECOND) * 10 * SECOND] * n, pa.int64()),
        pa.array([10] * n, pa.uint32()),
        pa.array([3] * n, pa.int32()),
        pa.array([17] * n, pa.int64()),
        pa.array([last_offset] * n, pa.int64()),
        pa.array([0] * n, pa.uint8()),
        text(["c"] * n),
    ]


def hotspots(start_ns, self_value, last_offset, n=4):
    functions = text([f"work_{i}" for i in range(n)])
    constants = [text([value] * n) for value in ("ns0", "service-0", "v1", "cpu", "nanoseconds")]
    values = pa.array([self_value] * n, pa.int64())
    columns = [*_window(start_ns, n, last_offset), *constants, functions, values, values]
    return pa.RecordBatch.from_arrays(columns, schema=HOTSPOT)


def latency_windows(rng, start_ns, last_offset, n=3):
    raw = latency(rng, start_ns, n)
    rest = [raw.column(name) for name in raw.schema.names if name != "time_ns"]
    return pa.RecordBatch.from_arrays(
        [*_window(start_ns, n, last_offset), text(["node-1"] * n), *rest], schema=LATENCY_WINDOW
    )


class Fleet:
    """Publishes and remembers what it published."""

    def __init__(self, producer, prefix, seed=1):
        self.producer = producer
        self.prefix = prefix
        self.rng = np.random.default_rng(seed)
        self.sequence = 0
        self.values = Counter()
        self.rows = Counter()
        self.lost = 0
        self.messages = 0
        self.latency_ns = 0

    def interval(self, node, start_ns, **more):
        self.sequence += 1
        return Interval(
            "test", "c", f"node-{node}", "p1", self.sequence, start_ns, start_ns + 10 * SECOND, lost=2, events=9, **more
        )

    async def send(self, topic, schema, batch, node=0, start_ns=None, partition=None):
        start_ns = start_ns or time.time_ns()
        value, headers = codec.encode(schema, batch, self.interval(node, start_ns))
        await self.producer.send_and_wait(
            self.prefix + topic.name, value, f"c/node-{node}".encode(), partition=partition, headers=headers
        )
        self.rows[schema] += batch.num_rows
        if schema == "profile":
            services = batch.column("service").to_pylist()
            for service, amount in zip(services, batch.column("value").to_pylist(), strict=True):
                self.values[service] += amount
        if schema == "event":
            self.latency_ns += sum(batch.column("latency_ns").to_pylist())
        if schema in ("profile", "event", "latency"):
            self.lost += 2
            self.messages += 1

    async def load(self, rounds=10**9, nodes=6, days=1, until=None):
        for _ in range(rounds):
            if until is not None:
                if until.is_set():
                    return
                await asyncio.sleep(0.1)
            now = time.time_ns()
            sends = []
            for node in range(nodes):
                sends += [
                    self.send(RAW_PROFILES, "profile", profile(self.rng, now, days=days), node, now),
                    self.send(RAW_EVENTS, "event", events(self.rng, now), node, now),
                    self.send(RAW_LATENCIES, "latency", latency(self.rng, now), node, now),
                ]
            await asyncio.gather(*sends)


class Ground:
    """One test's topics, database and sinks."""

    def __init__(self, kafka, dsn, prefix):
        self.kafka = kafka
        self.dsn = dsn
        self.prefix = prefix + "."
        self.group = f"{prefix}-sink"
        self.database = prefix
        self.settings = ClickHouseSettings(dsn=f"{dsn}/{prefix}")
        self.sinks = []

    def query(self, sql, **parameters):
        with closing(connect(self.settings)) as client:
            return client.query(sql, parameters=parameters).result_rows

    def start(self, program="from sinks.commands import sink; sink()", **more):
        port = free_port()
        command = [
            sys.executable, "-c", program, "--kafka", self.kafka, "--dsn",
            self.settings.dsn, "--topic-prefix", self.prefix, "--group", self.group, "--http-port", str(port),
        ]  # fmt: skip
        settings = {"PERFSTREAM_SESSION_TIMEOUT_MS": "2000", "PERFSTREAM_BATCH_LINGER_S": "0.1"}
        process = subprocess.Popen(command, env={**os.environ, **settings, **more})
        process.port = port
        self.sinks.append(process)
        return process

    def stored(self):
        """What the tables hold, in the shape of ``expected``."""
        # One client for all, which is asked five times a second: to make one costs as much as to ask it five times.
        with closing(connect(self.settings)) as client:
            values = dict(client.query("SELECT service, sum(value) FROM samples GROUP BY service").result_rows)
            rollup = dict(client.query("SELECT service, sum(value) FROM samples_1h GROUP BY service").result_rows)
            event_rows, event_ns = client.query("SELECT count(), sum(latency_ns) FROM events").result_rows[0]
            messages, distinct, lost = client.query(
                "SELECT count(), uniqExact(topic, partition, offset), sum(lost) FROM intervals"
            ).result_rows[0]
            ((rows,),) = client.query("SELECT count() FROM samples").result_rows
        return [values, rollup, rows, event_rows, event_ns, messages, distinct, lost]

    @staticmethod
    def expected(fleet):
        return [
            dict(fleet.values), dict(fleet.values), fleet.rows["profile"], fleet.rows["event"], fleet.latency_ns,
            fleet.messages, fleet.messages, fleet.lost,
        ]  # fmt: skip

    async def until_stored(self, fleet, timeout_s=60):
        await until(
            lambda: self.stored() == self.expected(fleet), timeout_s, lambda: (self.stored(), self.expected(fleet))
        )


async def until(condition, timeout_s=60, explain=lambda: ""):
    deadline = time.monotonic() + timeout_s
    while True:
        if await asyncio.to_thread(condition):
            return
        assert time.monotonic() < deadline, explain()
        await asyncio.sleep(0.2)


def health(process):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/healthz", timeout=2) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)
    except OSError:
        return {"ok": False, "checks": {}}


def metric(process, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=2) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@contextmanager
def ground_for(broker, dsn, unique):
    ground = Ground(broker.address, dsn, unique)
    try:
        yield ground
    finally:
        for process in ground.sinks:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def sink_store(request):
    """The store of the test session, or any ClickHouse that ``PERFSTREAM_TEST_CLICKHOUSE_DSN`` names."""
    given = os.environ.get("PERFSTREAM_TEST_CLICKHOUSE_DSN")
    return SimpleNamespace(dsn=given.rstrip("/")) if given else request.getfixturevalue("store")


@pytest.fixture
async def ground(broker, sink_store, unique):
    with ground_for(broker, sink_store.dsn, unique) as made:
        await topics_admin.apply(
            {"bootstrap_servers": broker.address}, [replace(t, name=made.prefix + t.name) for t in ALL]
        )
        migrate(made.settings)
        yield made


@pytest.fixture
async def fleet(broker, ground):
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, linger_ms=2)
    await producer.start()
    yield Fleet(producer, ground.prefix)
    await producer.stop()


async def test_each_schema_lands_once_with_its_columns(ground, fleet):
    process = ground.start()
    now = time.time_ns()
    await fleet.load(3, days=3)
    await fleet.send(HOTSPOTS, "hotspot", hotspots(now, 5, 20))
    await fleet.send(HOTSPOTS, "hotspot", hotspots(now, 8, 21))
    await fleet.send(LATENCY_WINDOWS, "latency_window", latency_windows(fleet.rng, now, 9))
    await ground.until_stored(fleet)
    await until(lambda: ground.query("SELECT count() FROM latency_final") == [(3,)])
    assert ground.query("SELECT sum(self), sum(total), max(last_offset) FROM hotspots_final") == [(32, 32, 21)]
    merged = ground.query("SELECT tupleElement(sumMap(buckets, counts), 2), sum(count) FROM latency_final")
    assert merged == [([2, 40, 30], 21)]
    assert ground.query("SELECT DISTINCT attributes['k'] FROM events WHERE detail = '/bin/thing7'") == [("7",)]
    assert ground.query("SELECT uniqExact(time) > 10, min(result), any(kind) FROM events") == [(1, -2, "exec")]
    # No sample lacks its stack, and the stack is what was sent.
    assert ground.query("SELECT count() FROM samples WHERE stack_id NOT IN (SELECT stack_id FROM stacks)") == [(0,)]
    found = ground.query(
        "SELECT functions, files, lines FROM stacks WHERE stack_id = {id:UInt64} LIMIT 1", id=stack_id(STACKS[7])
    )
    assert found == [(["main", "work_7"], ["main.c", "work.c"], [1, 7])]
    assert health(process) == {"ok": True, "checks": dict.fromkeys(("kafka", "store", "answers", "lag"), "")}
    assert metric(process, "perfstream_sink_rows_total") > 0
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 5


async def test_sums_are_exact_after_many_kills(ground, fleet):
    chance = random.Random(20)
    process = ground.start()
    done = asyncio.Event()
    loading = asyncio.create_task(fleet.load(days=2, until=done))
    for _ in range(6):
        await asyncio.sleep(chance.uniform(0.5, 2.5))
        process.kill()
        process.wait()
        process = ground.start()
    done.set()
    await loading
    await ground.until_stored(fleet, 90)
    await asyncio.sleep(1)
    assert ground.stored() == ground.expected(fleet)


DYING = """
import os, signal
from sinks import client
insert = client.insert
def dying(connection, table, rows, token):
    if {at!r} == "before " + table:
        os.kill(os.getpid(), signal.SIGKILL)
    sent = insert(connection, table, rows, token)
    if {at!r} == "after " + table:
        os.kill(os.getpid(), signal.SIGKILL)
    return sent
client.insert = dying
from sinks.commands import sink
sink()
"""


@pytest.mark.parametrize("at", ["before stacks", "after samples", "after intervals"])
async def test_a_kill_at_a_named_instant_loses_and_repeats_nothing(ground, fleet, at):
    await fleet.load(4, days=3)
    broken = ground.start(DYING.format(at=at))
    assert await asyncio.to_thread(broken.wait, 30) == -signal.SIGKILL
    before = ground.stored()
    assert before != ground.expected(fleet)
    process = ground.start()
    await ground.until_stored(fleet)
    assert metric(process, "perfstream_sink_replayed_batches_total") > 0


async def reset(ground):
    """Set the group to the beginning, as an operator does to read everything again: no metadata, offset 0."""
    topics = [ground.prefix + topic.name for topic in (*RAW, *RESULTS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=ground.kafka, group_id=ground.group, enable_auto_commit=False)
    await consumer.start()
    try:
        at = [TopicPartition(t, p) for t in topics for p in range(RAW[0].partitions)]
        consumer.assign(at)
        deadline = time.monotonic() + 20
        while True:
            try:
                await consumer.commit({tp: OffsetAndMetadata(0, "") for tp in at})
            except KafkaError:  # until the session of the dead member ends
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
            else:
                return
    finally:
        await consumer.stop()


@pytest.mark.parametrize("at", ["after samples", "after intervals"])
async def test_a_replay_into_the_same_tables_changes_nothing(ground, fleet, at):
    """Also when a crash had left a batch half done, and whatever the sizes of the batches are now."""
    first = ground.start(PERFSTREAM_BATCH_BYTES="20000")
    await fleet.load(3, days=3)
    await ground.until_stored(fleet)
    first.kill()
    first.wait()
    broken = ground.start(DYING.format(at=at), PERFSTREAM_BATCH_BYTES="30000")
    await fleet.load(3)
    assert await asyncio.to_thread(broken.wait, 30) == -signal.SIGKILL
    await reset(ground)
    await fleet.load(1)
    third = ground.start(PERFSTREAM_BATCH_LINGER_S="0.7")
    await ground.until_stored(fleet)
    await until(lambda: metric(third, "perfstream_sink_lag_messages") == 0)
    third.kill()
    third.wait()
    await reset(ground)
    fourth = ground.start()
    await fleet.load(1)
    await ground.until_stored(fleet)
    await until(lambda: metric(fourth, "perfstream_sink_lag_messages") == 0)
    assert ground.stored() == ground.expected(fleet)
    # What is stored was passed, not inserted again for the store to drop.
    assert metric(fourth, 'perfstream_sink_rows_total{table="samples"}') < fleet.rows["profile"]


async def test_bad_records_go_to_the_dead_letters_and_the_rest_is_stored(ground, fleet):
    ground.start()
    now = time.time_ns()
    topic = ground.prefix + RAW_PROFILES.name
    value, headers = codec.encode("profile", profile(fleet.rng, now), fleet.interval(1, now))
    newer = [(k, b"profile/99" if k == "schema" else v) for k, v in headers]
    await fleet.load(1)
    endless = [(k, b"9" * 30 if k == "events" else v) for k, v in headers]
    elsewhere = codec.encode("event", events(fleet.rng, now), fleet.interval(1, now))
    for body, head in ((value, newer), (value[:-40], headers), (b"", []), (value, endless), elsewhere):
        await fleet.producer.send_and_wait(topic, body, b"k", partition=0, headers=head)
    await fleet.load(1)
    await ground.until_stored(fleet)
    consumer = AIOKafkaConsumer(
        ground.prefix + DEAD_LETTERS.name, bootstrap_servers=ground.kafka, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        letters = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(5)]
    finally:
        await consumer.stop()
    reasons = [dict(letter.headers)["reason"] for letter in letters]
    assert reasons == [b"unknown_version", *[b"corrupt"] * 4]
    assert letters[0].value == value
    assert dict(letters[0].headers)["original.schema"] == b"profile/99"
    assert letters[0].key.decode().startswith(f"{topic}:0:")


async def test_a_clock_a_day_ahead_is_clamped_and_counted(ground, fleet):
    process = ground.start()
    ahead = time.time_ns() + 86_000 * SECOND
    await fleet.send(RAW_PROFILES, "profile", profile(fleet.rng, ahead), start_ns=ahead)
    await ground.until_stored(fleet)
    assert ground.query("SELECT max(time) <= now() + 11 FROM samples") == [(1,)]
    assert ground.query("SELECT sum(clamped) FROM intervals") == [(200,)]
    assert metric(process, "perfstream_sink_clamped_rows_total") == 200


async def test_clocks_all_over_the_calendar_are_clamped_counted_and_stored_in_one_insert(ground, fleet):
    """Each day is a partition of the store, which refuses an insert into more than a hundred of them."""
    process = ground.start()
    now = time.time_ns()
    for number in range(5):
        batch = profile(fleet.rng, now, 200)
        days = (np.arange(200) + 200 * number - 500) * 90  # from 1903 to 2149
        times = now + days * 86_400 * SECOND
        times[0] = -1
        batch = batch.set_column(0, batch.schema.field(0), pa.array(times, pa.int64()))
        await fleet.send(RAW_PROFILES, "profile", batch, start_ns=int(times[0]), partition=1)
        found = events(fleet.rng, now, 200)
        found = found.set_column(0, found.schema.field(0), pa.array(times, pa.int64()))
        await fleet.send(RAW_EVENTS, "event", found, start_ns=int(times[0]), partition=1)
    await ground.until_stored(fleet)
    assert ground.query("SELECT uniqExact(toDate(time)) <= 3, min(time) >= now() - INTERVAL 8 DAY FROM samples") == [
        (1, 1)
    ]
    assert ground.query("SELECT min(time) >= now() - INTERVAL 8 DAY, max(end_time) <= now() + 11 FROM intervals") == [
        (1, 1)
    ]
    ((clamped,),) = ground.query("SELECT sum(clamped) FROM intervals")
    assert clamped == metric(process, "perfstream_sink_clamped_rows_total") == 2 * 999


@pytest.fixture
async def own(broker, start, unique):
    """A ground on a store of its own, which the test may stop."""
    store = start()
    with ground_for(broker, store.dsn, unique) as made:
        await topics_admin.apply(
            {"bootstrap_servers": broker.address}, [replace(t, name=made.prefix + t.name) for t in ALL]
        )
        migrate(made.settings)
        made.store = store
        yield made


@pytest.fixture
async def own_fleet(broker, own):
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, linger_ms=2, max_request_size=2**24)
    await producer.start()
    yield Fleet(producer, own.prefix)
    await producer.stop()


LITTLE_ROOM = {
    "PERFSTREAM_BATCH_BYTES": "100000",
    "PERFSTREAM_BATCH_BUFFER_BYTES": "300000",
    "PERFSTREAM_BATCH_INSERT_TIMEOUT_S": "2",
}


def silent(process):
    return "does not answer" in health(process)["checks"].get("store", "")


async def test_kafka_holds_the_data_while_the_store_is_away_or_stands_still(own, own_fleet, start):
    process = own.start(**LITTLE_ROOM)
    await own_fleet.load(2)
    await own.until_stored(own_fleet)

    own.store.process.kill()
    own.store.process.wait()
    sizes = []
    for partition in [0, 1, 2, 3] * 3:
        now = time.time_ns()
        batch = profile(own_fleet.rng, now, n=20_000)
        sizes.append(len(codec.encode("profile", batch, own_fleet.interval(0, now))[0]))
        await own_fleet.send(RAW_PROFILES, "profile", batch, partition=partition)
    await own_fleet.load(2)
    await until(lambda: silent(process), 20, lambda: health(process))
    await until(lambda: metric(process, "perfstream_sink_insert_failures_total") >= 3, 30)
    waiting = metric(process, "perfstream_sink_waiting_bytes")
    assert 0 < waiting < 300_000 + 4 * max(sizes) < sum(sizes)
    assert metric(process, "perfstream_sink_lag_messages") > 5
    again = start(port=own.store.port)  # the same files
    await own.until_stored(own_fleet)
    await until(lambda: health(process)["ok"], 10, lambda: health(process))

    os.killpg(again.process.pid, signal.SIGSTOP)
    try:
        await own_fleet.load(3)
        await until(lambda: silent(process), 20, lambda: health(process))
    finally:
        os.killpg(again.process.pid, signal.SIGCONT)
    await own.until_stored(own_fleet)
    await asyncio.sleep(1)
    assert own.stored() == own.expected(own_fleet)  # also when the insert that had timed out landed after all
    assert process.poll() is None


async def test_a_refused_insert_is_red_loses_nothing_and_stops_no_other_table(ground, fleet):
    process = ground.start()
    client = connect(ground.settings)
    client.command("ALTER TABLE events DROP COLUMN detail")
    await fleet.load(2)
    await until(lambda: "refuses" in health(process)["checks"].get("store", ""), 20, lambda: health(process))
    assert not health(process)["ok"]
    await until(lambda: ground.stored()[:3] == ground.expected(fleet)[:3])
    assert metric(process, 'perfstream_sink_insert_failures_total{kind="rejected"}') > 0
    client.command("ALTER TABLE events ADD COLUMN detail String")
    client.close()
    await ground.until_stored(fleet)
    await until(lambda: health(process)["ok"], 10, lambda: health(process))


BUSY = """
import time
from sinks import client
from streams.schema.errors import BackpressureError
insert, begun = client.insert, []
def busy(connection, table, rows, token):
    begun.append(time.monotonic())
    if begun[-1] - begun[0] < 1.0:
        raise BackpressureError("too many parts", 1.5)
    if begun[-1] - begun[0] < 1.5:
        raise ValueError("it was told to wait for 1.5 s")
    return insert(connection, table, rows, token)
client.insert = busy
from sinks.commands import sink
sink()
"""


async def test_a_busy_store_is_given_the_time_it_asks_for(ground, fleet):
    await fleet.load(1, nodes=1)
    process = ground.start(BUSY)
    await until(lambda: "too much to do" in health(process)["checks"].get("store", ""), 20, lambda: health(process))
    assert metric(process, 'perfstream_sink_insert_failures_total{kind="busy"}') > 0
    await ground.until_stored(fleet)
    assert process.poll() is None


async def test_a_second_sink_joins_and_leaves(ground, fleet):
    first = ground.start()
    done = asyncio.Event()
    loading = asyncio.create_task(fleet.load(until=done))
    await asyncio.sleep(1.5)
    second = ground.start()
    await until(lambda: health(second)["ok"] and metric(second, "perfstream_sink_messages_total") > 0)
    second.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(second.wait, 10) == 0
    third = ground.start()
    await until(lambda: health(third)["ok"])
    first.kill()
    await until(lambda: metric(third, "perfstream_sink_messages_total") > 0)
    done.set()
    await loading
    await ground.until_stored(fleet)


def test_the_tables_are_what_the_definitions_say(sink_store, unique):
    settings = ClickHouseSettings(dsn=f"{sink_store.dsn}/{unique}")
    assert [name[:4] for name in migrate(settings)] == ["0001", "0002", "0003", "0004"]
    assert migrate(settings) == []
    client = connect(settings)
    try:
        columns = client.query(
            "SELECT table, groupArray((name, type)) FROM (SELECT table, name, type FROM system.columns "
            "WHERE database = {database:String} ORDER BY table, position) GROUP BY table",
            parameters={"database": unique},
        ).result_rows
        found = {table: tuple(map(tuple, pairs)) for table, pairs in columns}
        for table in (*tables.TABLES.values(), *tables.VIEWS.values()):
            assert found[table.name] == table.columns, table.name
        described = client.query(
            "SELECT name, sorting_key, create_table_query FROM system.tables WHERE database = {database:String} "
            "AND engine LIKE '%MergeTree'",
            parameters={"database": unique},
        ).result_rows
        for name, key, query in described:
            if name == "schema_migrations":
                continue
            assert key == tables.TABLES[name].sorting_key
            assert "TTL" in query
            assert query.count("CODEC") == len(tables.TABLES[name].columns), name
    finally:
        client.close()
