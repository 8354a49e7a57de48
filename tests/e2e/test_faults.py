"""Each fault shows within 15 s in the status of ``perfstream up`` and in ``/healthz``, and goes away with its cause.

One stack for all. ``stack.tend()`` is what restarts dead stages: it is not called while a fault is to be looked at.
"""

import asyncio
import signal
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.stack import status
from deploy.stack.settings import Ports, StackSettings
from deploy.stack.supervisor import Stack
from streams.schema import codec
from streams.schema.topics import RAW, schema_of
from tests.bench.pipeline import connect
from tests.kernel.disk import kept_full, mounted

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.services]

SHOWN_WITHIN_S, WELL_WITHIN_S = 15.0, 60.0
PARTITIONS = 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A working directory whose store and spool lie on small disks of their own."""
    home = tmp_path_factory.mktemp("faults")
    with mounted(home / "store", "400m"), mounted(home / "spool", "8m"):
        yield home


@pytest.fixture(scope="module")
def stack(directory):
    instance = Stack(
        directory,
        StackSettings(ports=Ports.free(), partitions=PARTITIONS),
        extra={
            "PERFSTREAM_AGENT_INTERVAL_S": "2",
            "PERFSTREAM_AGENT_BUDGET_PERCENT": "100",
            "PERFSTREAM_STORE_MINIMUM_FREE_BYTES": str(32 << 20),
        },
    )
    try:
        instance.addresses = instance.start()
        wait_until_well(instance)
        yield instance
    finally:
        for stage in instance.stages.values():
            stage.signal(signal.SIGCONT)
        instance.stop()


def look(stack):
    """Return the troubles of every stage as the status shows them; {} for one that is well, which must answer."""
    found = {}
    for name, stage in stack.stages.items():
        reading = status.read(stage)
        shown = status._state(stage, reading).plain
        found[name] = dict(reading.problems) if shown.startswith(("ill", "well")) else {"process": shown}
        assert shown.startswith("well") is not bool(found[name])
    return found


def wait_until_well(stack, seconds=WELL_WITHIN_S):
    deadline = time.monotonic() + seconds
    while any((now := look(stack)).values()):
        assert time.monotonic() < deadline, f"not well again after {seconds:.0f} s: {now}"
        stack.tend()
        time.sleep(0.3)


def shows(stack, expected):
    """Wait until each stage of ``expected`` is in trouble with one of its words; returns how long that took."""
    began = time.monotonic()
    while True:
        now = look(stack)
        missing = {name: words for name, words in expected.items() if not set(words) & set(now[name])}
        took = time.monotonic() - began
        if not missing:
            return took
        assert took < SHOWN_WITHIN_S, f"{missing} not shown in {took:.0f} s: {now}"
        time.sleep(0.2)


@contextmanager
def killed(stack, name):
    stack.stages[name].signal(signal.SIGKILL)
    yield  # and ``tend`` starts it again


@contextmanager
def stopped(stack, *names):
    for name in names:
        stack.stages[name].signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            stack.stages[name].signal(signal.SIGCONT)


@contextmanager
def small_budget(stack):
    stage = stack.stages["agent"]
    before = stage.environment
    stage.environment = {**before, "PERFSTREAM_AGENT_BUDGET_PERCENT": "0.01"}
    restart(stack, stage)
    try:
        yield
    finally:
        stage.environment = before
        restart(stack, stage)


def restart(stack, stage):
    stage.signal(signal.SIGTERM)
    stage.process.wait(20)
    while not (stage.running and status.read(stage).counters):
        stack.tend()
        time.sleep(0.1)


FAULTS = {
    "spool disk full": (lambda stack: kept_full(stack.directory / "spool"), {"agent": ["spool"]}),
    "store disk full": (lambda stack: kept_full(stack.directory / "store"), {"store": ["disk"], "sink": ["store"]}),
    "store killed": (lambda stack: killed(stack, "store"), {"store": ["process"], "sink": ["answers"]}),
    "store stands still": (
        lambda stack: stopped(stack, "store"), {"store": ["healthz"], "sink": ["answers", "store"]},
    ),
    "worker and sink stand still": (
        lambda stack: stopped(stack, "worker", "sink"), {"worker": ["healthz"], "sink": ["healthz"]},
    ),
    "Kafka stands still": (
        lambda stack: stopped(stack, "kafka"), {"agent": ["kafka"], "worker": ["kafka", "flush"], "sink": ["kafka"]},
    ),
    "Kafka killed": (
        lambda stack: killed(stack, "kafka"),
        {"kafka": ["process"], "agent": ["kafka"], "worker": ["kafka", "flush", "process"], "sink": ["kafka"]},
    ),
    "CPU budget exceeded": (small_budget, {"agent": ["budget"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_shows_and_goes_away(stack, name, record_property):
    cause, expected = FAULTS[name]
    wait_until_well(stack)
    with cause(stack):
        record_property("shown_in_s", took := shows(stack, expected))
    began = time.monotonic()
    wait_until_well(stack)
    print(f"{name}: shown after {took:.1f} s, well {time.monotonic() - began:.1f} s after its end")


def test_after_all_of_it_the_store_holds_what_kafka_holds(stack):
    """Must come last: it ends the agent."""
    wait_until_well(stack)
    agent = stack.stages["agent"]
    agent.signal(signal.SIGTERM)
    agent.process.wait(20)
    kafka = asyncio.run(published(stack.addresses.kafka))
    client = connect(stack.addresses)
    deadline = time.monotonic() + 30
    while (stored := held(client)) != kafka:
        assert time.monotonic() < deadline, (stored, kafka)
        time.sleep(0.5)
    assert kafka["profile rows"] > 100


def held(client):
    rows, value = client.query("SELECT count(), sum(value) FROM samples").result_rows[0]
    messages, lost = client.query("SELECT count(), sum(lost) FROM intervals").result_rows[0]
    (events,) = client.query("SELECT count() FROM events").result_rows[0]
    return {"profile rows": rows, "value": value, "messages": messages, "lost": lost, "event rows": events}


async def published(kafka):
    """Return the sums over all raw messages."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    sums = Counter(dict.fromkeys(("profile rows", "value", "messages", "lost", "event rows"), 0))
    try:
        for topic in RAW:
            for number in range(PARTITIONS):
                at = TopicPartition(topic.name, number)
                consumer.assign([at])
                (end,) = (await consumer.end_offsets([at])).values()
                while await consumer.position(at) < end:
                    for record in (await consumer.getmany(at, timeout_ms=500)).get(at, []):
                        schema, interval, batch = codec.decode(record.headers, record.value, schema_of(topic.name))
                        sums["messages"] += 1
                        sums["lost"] += interval.lost
                        if schema == "profile":
                            sums["profile rows"] += batch.num_rows
                            sums["value"] += sum(batch.column("value").to_pylist())
                        elif schema == "event":
                            sums["event rows"] += batch.num_rows
    finally:
        await consumer.stop()
    return dict(sums)
