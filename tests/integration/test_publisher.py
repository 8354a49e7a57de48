"""The publisher against the real broker: round trip, a broker that is killed and comes back, a spool that overflows."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from collectors import publisher as module
from collectors.publisher import Publisher
from collectors.spool import Spool
from deploy.broker import Broker, free_port
from runtime.settings import KafkaSettings
from streams import topics_admin
from streams.schema import codec, stack_columns, stacks
from streams.schema.messages import PROFILE
from streams.schema.topics import RAW_PROFILES, Topic

pytestmark = pytest.mark.services
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def profile(rows, number=0, names=50):
    rng = np.random.default_rng(number)
    texts = [stacks.join([stacks.frame_text("main"), stacks.frame_text(f"f{i}", "a.go", i)]) for i in range(names)]
    values = stack_columns.entries(texts)
    columns = {
        "time_ns": pa.array(np.full(rows, START + number * SECOND)),
        "stack": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, names, rows), pa.int32()), values),
        "value": pa.array(rng.integers(1, 100, rows)),
        "period": pa.array(np.full(rows, 10)),
    }
    for field in PROFILE:
        if field.name not in columns:
            text = {"service": "shop", "type": "cpu", "unit": "nanoseconds"}.get(field.name, "")
            columns[field.name] = pa.array([text] * rows, pa.string()).dictionary_encode()
    return pa.RecordBatch.from_arrays([columns[f.name].cast(f.type) for f in PROFILE], schema=PROFILE)


async def topics(address, prefix):
    topic = Topic(prefix + RAW_PROFILES.name, "node", "profile", 2, 3_600_000)
    await topics_admin.apply({"bootstrap_servers": address}, [topic])
    return topic.name


async def everything(address, topic):
    """Return every (headers, value) of a topic, in order."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        at = sorted(consumer.assignment())
        assert at
        ends = await consumer.end_offsets(at)
        found = []
        for partition in at:
            while await consumer.position(partition) < ends[partition]:
                for records in (await consumer.getmany(partition, timeout_ms=1000)).values():
                    found += [codec.decode(record.headers, record.value) for record in records]
        return found
    finally:
        await consumer.stop()


async def until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


@pytest.fixture
def own_broker(tmp_path):
    instance = Broker(tmp_path / "kafka", free_port(), free_port(), heap="256m")
    instance.start()
    yield instance
    instance.stop()


async def test_what_is_published_can_be_read_and_an_empty_interval_travels(broker, unique, tmp_path):
    topic = await topics(broker.address, unique)
    spool = Spool(tmp_path / "spool")
    latencies = []
    sender = Publisher(KafkaSettings(broker.address), spool, "c1", "n1", unique, latencies.append)
    sender.start()
    batch = profile(1000)
    begun = time.monotonic()
    done = sender.publish("cpu", "profile", batch, START, START + 10 * SECOND, events=1234, lost=5)
    assert (done.messages, done.rows, done.lost) == (1, 1000, 5)
    await until(lambda: sender.acknowledged == 1)
    assert time.monotonic() - begun < 3
    sender.publish("cpu", "profile", batch.slice(0, 0), START, START + SECOND, 0, 3)
    assert await asyncio.to_thread(sender.close)
    (name, first, rows), (_, empty, nothing) = await everything(broker.address, topic)
    assert name == "profile"
    assert rows.equals(batch)
    assert (first.collector, first.cluster, first.node, first.events, first.lost) == ("cpu", "c1", "n1", 1234, 5)
    assert (first.sequence, empty.sequence) == (0, 1)
    assert (nothing.num_rows, empty.lost, first.producer) == (0, 3, sender.producer)
    assert len(latencies) == 2
    assert spool.loads().messages == 0
    spool.close()


async def test_big_batches_are_split_and_counts_stand_once(broker, unique, tmp_path, monkeypatch):
    topic = await topics(broker.address, unique)
    monkeypatch.setattr(module, "MAX_ROWS", 7_001)
    monkeypatch.setattr(module, "MAX_MESSAGE_BYTES", 60_000)
    spool = Spool(tmp_path / "spool")
    sender = Publisher(KafkaSettings(broker.address), spool, "c1", "n1", unique)
    sender.start()
    batch = profile(20_011, names=5_003)
    done = sender.publish("cpu", "profile", batch, START, START + SECOND, events=100_003, lost=17)
    assert done.messages > 3
    assert await asyncio.to_thread(sender.close, 20)
    found = await everything(broker.address, topic)
    assert len(found) == done.messages
    assert [interval.sequence for _, interval, _ in found] == list(range(done.messages))
    assert sum(interval.events for _, interval, _ in found) == 100_003
    assert [interval.lost for _, interval, _ in found] == [17] + [0] * (done.messages - 1)
    assert max(rows.num_rows for _, _, rows in found) <= 7_001
    assert sum(rows.num_rows for _, _, rows in found) == 20_011
    for column in ("value", "time_ns", "stack"):
        got = [value for _, _, rows in found for value in rows.column(column).to_pylist()]
        assert got == batch.column(column).to_pylist()
    spool.close()


async def test_a_broker_killed_mid_stream_loses_nothing_and_doubles_nothing(own_broker, unique, tmp_path):
    topic = await topics(own_broker.address, unique)
    spool = Spool(tmp_path / "spool")
    sender = Publisher(KafkaSettings(own_broker.address), spool, "c1", "n1", unique)
    sender.start()
    total = 0
    for number in range(170):
        batch = profile(53, number)
        total += int(np.sum(batch.column("value").to_numpy()))
        begun = time.monotonic()
        sender.publish(("cpu", "offcpu")[number % 2], "profile", batch, START, START + SECOND, events=53)
        assert time.monotonic() - begun < 0.5, "the collector was blocked"
        if number == 60:
            own_broker.kill()
        if number == 110:
            assert spool.loads().messages > 0
            await asyncio.to_thread(own_broker.start)
        await asyncio.sleep(0.01)
    await until(lambda: spool.loads().messages == 0, 60)
    assert await asyncio.to_thread(sender.close)
    found = await everything(own_broker.address, topic)
    identities = [(i.producer, i.collector, i.sequence) for _, i, _ in found]
    assert len(identities) == len(set(identities)) == 170
    assert sum(int(np.sum(rows.column("value").to_numpy())) for _, _, rows in found) == total
    for collector in ("cpu", "offcpu"):
        assert [i.sequence for _, i, _ in found if i.collector == collector] == list(range(85))
    spool.close()


async def test_an_absent_kafka_fills_the_spool_and_what_is_dropped_is_counted_exactly(broker, unique, tmp_path):
    topic = await topics(broker.address, unique)
    # Nobody listens here: the messages wait, and most are dropped.
    spool = Spool(tmp_path / "spool", 64 * 1024)
    sender = Publisher(KafkaSettings(f"127.0.0.1:{free_port()}"), spool, "c1", "n1", unique)
    sender.start()
    rows = events = lost = 0
    for number in range(60):
        sender.publish("cpu", "profile", profile(101, number), START, START + SECOND, events=101, lost=2)
        rows, events, lost = rows + 101, events + 101, lost + 2
    await until(lambda: sender.trouble)
    begun = time.monotonic()
    assert not await asyncio.to_thread(sender.close, 0.5)
    assert time.monotonic() - begun < 4
    assert spool.loads().dropped_messages > 20
    spool.close()
    # The next life of the agent reaches Kafka: what is kept arrives, and what is owed is reported.
    spool = Spool(tmp_path / "spool", 64 * 1024)
    sender = Publisher(KafkaSettings(broker.address), spool, "c1", "n1", unique)
    sender.start()
    sender.publish("cpu", "profile", profile(1), START, START + SECOND, events=1)
    assert await asyncio.to_thread(sender.close, 20)
    found = await everything(broker.address, topic)
    stored = sum(i.events for _, i, _ in found)
    reported = sum(i.lost for _, i, _ in found)
    # What its own arrival pushed out, the next message would report.
    assert stored + reported + sum(spool.loads().owed.values()) == events + 1 + lost
    assert stored == sum(batch.num_rows for _, _, batch in found)
    assert 0 < stored < events
    spool.close()


AGENT = """
import os, signal, sys, time
from pathlib import Path
from collectors.publisher import Publisher
from collectors.spool import Spool
from runtime.settings import KafkaSettings
from tests.integration.test_publisher import START, SECOND, profile
address, prefix, directory, life, dies = sys.argv[1:]
spool = Spool(Path(directory))
acknowledge, seen = spool.ack, []
def ack(entry):
    seen.append(entry)
    if dies == "yes" and len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # Kafka has it, the spool does not know
    acknowledge(entry)
spool.ack = ack
sender = Publisher(KafkaSettings(address), spool, "c1", "n1", prefix)
for number in range(5):
    sender.publish("cpu", "profile", profile(11, number), START, START + SECOND, events=11)
sender.start()
sys.exit(0 if sender.close(30) else 1)
"""


async def test_what_kafka_has_and_the_killed_agent_does_not_know_is_stored_once(broker, unique, tmp_path):
    topic = await topics(broker.address, unique)
    for life in range(5):
        if life == 2:  # keys would go elsewhere now; the repeat must not
            admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
            await admin.start()
            await admin.create_partitions({topic: NewPartitions(7)})
            await admin.close()
        dies = "no" if life == 4 else "yes"
        agent = [sys.executable, "-c", AGENT, broker.address, unique, str(tmp_path / "spool"), str(life), dies]
        done = await asyncio.to_thread(subprocess.run, agent, cwd=Path(__file__).parents[2], timeout=60, check=False)
        assert done.returncode == (0 if dies == "no" else -signal.SIGKILL)
    identities = [(i.producer, i.sequence) for _, i, _ in await everything(broker.address, topic)]
    assert len(identities) == len(set(identities)) == 5 * 5
    assert not list((tmp_path / "spool").glob("*.seg"))
