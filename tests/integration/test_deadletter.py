"""What cannot be read lands in the dead letters, nothing stands still for it, and a replay counts once."""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.util import calc_crc32c

from deploy.broker import free_port
from runtime import workdir
from sinks import letters
from streams.schema import codec, stack_columns
from streams.schema.stacks import MAX_STACK_BYTES
from streams.schema.topics import DEAD_LETTERS, RAW_LATENCIES, RAW_PROFILES
from tests.integration import test_sink
from tests.integration.test_sink import fleet, ground, health, profile, sink_store, text, until

__all__ = ["fleet", "ground", "sink_store"]

pytestmark = pytest.mark.services


def perfstream(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def metric(process, name):
    """The value, 0 while the process does not answer yet."""
    try:
        return test_sink.metric(process, name)
    except OSError:
        return 0


class Box:
    """The command, for one test's topics."""

    def __init__(self, ground):
        self.where = ["--kafka", ground.kafka, "--topic-prefix", ground.prefix]

    def run(self, verb, *arguments):
        return perfstream("deadletter", verb, *self.where, *arguments)

    def list(self, *arguments):
        answer = self.run("list", "--format", "json", *arguments)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)


@pytest.fixture
def box(ground):
    return Box(ground)


async def read(ground, topic):
    """All records of a topic, by the reader that survives any of them."""
    from runtime import kafka_records

    kafka_records.install()
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=ground.kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found = []
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
        return found
    finally:
        await consumer.stop()


def written(batch, fleet, **headers):
    """As a producer that checks nothing writes it."""
    now = time.time_ns()
    sample = profile(fleet.rng, now, batch.num_rows)
    _, given = codec.encode("profile", sample, fleet.interval(1, now))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes(), [(k, headers.get(k, v)) for k, v in given]


def replaced(batch, name, column):
    return batch.set_column(batch.schema.get_field_index(name), name, column)


def stack_of(frames, n):
    one = stack_columns.entries([frames])
    return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), one)


def bomb():
    """Some kilobytes that inflate to 600 MB."""
    n = 1_999_999
    columns = {f"c{i}": pa.array(np.zeros(n, np.int64)) for i in range(40)}
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def hostile(fleet):
    """{name: (value, headers, reason, a part of the error)}."""
    now = time.time_ns()
    batch = profile(fleet.rng, now, 20)
    value, headers = codec.encode("profile", batch, fleet.interval(1, now))
    chance = np.random.default_rng(7)
    newer = [(k, b"profile/99" if k == "schema" else v) for k, v in headers]
    negative = replaced(batch, "value", pa.array([-1] * 20, pa.int64()))
    return {
        "random bytes": (chance.bytes(5_003), headers, "corrupt", "not a valid"),
        "no bytes": (b"", headers, "corrupt", "not a valid"),
        "no value": (None, headers, "corrupt", "empty"),
        "no headers": (value, [], "corrupt", "no readable 'schema'"),
        "header without value": (value, [("schema", None)], "corrupt", "no readable 'schema'"),
        "truncated": (value[: len(value) * 2 // 3], headers, "corrupt", "not a valid"),
        "bomb": (bomb(), headers, "corrupt", "more than the bound"),
        "wrong type": (*written(replaced(batch, "value", pa.array([0.5] * 20)), fleet), "corrupt", "is double"),
        "wrong version": (value, newer, "unknown_version", "version 99"),
        "wrong schema": (value, [(k, b"x/1" if k == "schema" else v) for k, v in headers], "unknown_version", "'x'"),
        "negative": (*written(negative, fleet), "corrupt", "negative"),
        "negative header": (value, [(k, b"-3" if k == "lost" else v) for k, v in headers], "corrupt", "negative"),
        "overlong name": (*written(replaced(batch, "service", text(["s" * 4097] * 20)), fleet), "corrupt", "longer"),
        "overlong stack": (
            *written(replaced(batch, "stack", stack_of("f" * (MAX_STACK_BYTES + 1), 20)), fleet), "corrupt", "longer",
        ),
        "overlong header": (value, [(k, b"n" * 5000 if k == "node" else v) for k, v in headers], "corrupt", "longer"),
        "escape codes": (value, [(k, b"\x1b[31m" if k == "schema" else v) for k, v in headers], "corrupt", "schema"),
    }  # fmt: skip


def start_worker(ground, directory):
    port = free_port()
    worker = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "worker", "--kafka", ground.kafka, "--topic-prefix", ground.prefix,
         "--group", ground.group + "w", "--http-port", str(port), "--datadir", str(directory / "faust")],
        env={**os.environ, "PERFSTREAM_WORKER_FLUSH_S": "0.2"},
    )  # fmt: skip
    worker.port = port
    ground.sinks.append(worker)
    return worker


def killed_before_its_last_note(*arguments):
    return subprocess.run([sys.executable, "-c", DYING, *arguments, "--yes"], check=False, timeout=60).returncode


async def test_every_kind_of_bad_record_is_kept_with_its_place_and_stops_neither_sink_nor_worker(
    ground, fleet, box, tmp_path
):
    sink = ground.start()
    worker = start_worker(ground, tmp_path)
    topic = ground.prefix + RAW_PROFILES.name
    sent = {}
    await fleet.load(1)
    for name, (value, headers, reason, error) in hostile(fleet).items():
        at = await fleet.producer.send_and_wait(topic, value, name.encode(), partition=2, headers=headers)
        sent[f"{topic}:2:{at.offset}"] = name, value, headers, reason, error
    await fleet.load(1)
    await ground.until_stored(fleet)
    found = await read(ground, ground.prefix + DEAD_LETTERS.name)
    assert sorted(r.key.decode() for r in found) == sorted(sent)
    for record in found:
        name, value, headers, reason, error = sent[record.key.decode()]
        letter = letters.read(record)
        assert (letter.place, letter.reason) == (record.key.decode(), reason), name
        assert error in letter.error, (name, letter.error)
        assert (letter.value, letter.key) == (value, name.encode())
        assert list(letter.headers) == headers
        assert 0 <= letter.time_ms - int(dict(record.headers)["append_ms"]) < 60_000
    # The worker has passed them all as well, and has counted what it skipped.
    bad = "perfstream_worker_bad_records_total"
    await until(lambda: metric(worker, bad) == len(sent), 60, lambda: metric(worker, bad))
    await until(lambda: metric(worker, "perfstream_worker_lag_messages{") == 0)
    assert (sink.poll(), worker.poll(), health(sink)["ok"], health(worker)["ok"]) == (None, None, True, True)
    assert metric(sink, "perfstream_sink_dead_letters_total") == len(sent)

    by = box.list("--by", "reason")
    assert [(row["reason"], row["letters"]) for row in by] == [("corrupt", len(sent) - 2), ("unknown_version", 2)]
    assert [row["place"] for row in box.list("-n", "3")] == [f"{topic}:2:{o}" for o in sorted(
        int(place.rsplit(":", 1)[1]) for place in sent)[-3:]]  # fmt: skip
    assert len(box.list("--topic", RAW_PROFILES.name, "--since", "10m", "--reason", "unknown_version")) == 2
    assert box.list("--topic", RAW_LATENCIES.name) == box.list("--since", "2200-01-01") == []
    shown = {name: place for place, (name, *_) in sent.items()}
    table = box.run("list")
    assert "\x1b" not in table.stdout
    assert len(table.stdout.splitlines()) == len(sent) + 1
    target = tmp_path / "payload"
    answer = box.run("show", shown["random bytes"], "--output", str(target), "--bytes", "16")
    assert target.read_bytes() == sent[shown["random bytes"]][1]
    assert f"{target.read_bytes()[:16].hex(' ')}" in answer.stdout
    assert "4987 bytes more" in answer.stdout
    assert "\\x1b[31m" in box.run("show", shown["escape codes"]).stdout
    (one,) = json.loads(box.run("show", "0", "--format", "json").stdout)
    assert (one["offset"], one["hex"]) == (0, sent[one["place"]][1][:256].hex())
    missing = box.run("show", "nowhere:0:1")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    # None of them decodes by now: a replay leaves them where they are, and says so.
    refused = box.run("replay", "--reason", "unknown_version", "--yes")
    assert refused.returncode == 1
    assert refused.stderr.count("still does not decode") == 2
    forced = box.run("replay", shown["wrong version"], "--force", "--yes")
    assert forced.returncode == 0, forced.stderr
    await until(lambda: len(box.list()) == len(sent) + 1)
    assert [row["replayed"] for row in box.list("--reason", "unknown_version")].count("") == 2


def unreadable(monkeypatch):
    """Make header keys named BADKEY bytes that are no UTF-8, as a producer in another language can."""
    build = message_accumulator.BatchBuilder._build

    def spoiled(self):
        data = bytearray(build(self))
        at = data.find(b"BADKEY")
        if at >= 0:
            data[at : at + 2] = b"\xff\xfe"
            struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
        return data

    monkeypatch.setattr(message_accumulator.BatchBuilder, "_build", spoiled)


async def test_records_that_kafkas_client_itself_cannot_read_stop_nothing(ground, fleet, monkeypatch):
    sink = ground.start()
    now = time.time_ns()
    topic = ground.prefix + RAW_PROFILES.name
    await fleet.load(1)
    unreadable(monkeypatch)
    value, headers = codec.encode("profile", profile(fleet.rng, now, 5), fleet.interval(1, now))
    await fleet.producer.send_and_wait(topic, value, partition=0, headers=[("BADKEY", b"1")])
    # A good record with such a header beside its own counts like any other.
    batch = profile(fleet.rng, now, 5)
    value, headers = codec.encode("profile", batch, fleet.interval(1, now))
    await fleet.producer.send_and_wait(topic, value, partition=0, headers=[("BADKEY", b"1"), *headers])
    for service, amount in zip(batch.column("service").to_pylist(), batch.column("value").to_pylist(), strict=True):
        fleet.values[service] += amount
    fleet.rows["profile"] += 5
    fleet.messages += 1
    fleet.lost += 2
    # Kafka's own compression hides what a record holds from the broker's bound.
    packer = AIOKafkaProducer(
        bootstrap_servers=ground.kafka, compression_type="zstd", max_request_size=1 << 28, max_batch_size=1 << 28
    )
    await packer.start()
    await packer.send_and_wait(topic, bytes(100 << 20), partition=1, headers=headers)
    large = bytes(20 << 20)
    await packer.send_and_wait(topic, large, b"key", partition=1, headers=headers)
    await packer.stop()
    await fleet.load(1)
    await ground.until_stored(fleet)
    found = []
    deadline = time.monotonic() + 30
    while len(found) < 3 and time.monotonic() < deadline:
        found = [letters.read(r) for r in await read(ground, ground.prefix + DEAD_LETTERS.name)]
    bad, first, second = sorted(found, key=lambda letter: (letter.partition, letter.original_offset))
    assert [name for name, _ in bad.headers] == ["\\xff\\xfeDKEY"]
    assert (first.value, first.headers[0][0]) == (None, "perfstream.unreadable")
    # Too large for its topic: as much of it as fits, and a word about the rest.
    assert second.size == len(large)
    assert second.cut == f"the value had {len(large)} bytes"
    assert 16 << 20 < len(second.value) < 17 << 20
    assert health(sink)["ok"]


OLD = """
from types import MappingProxyType
from streams.schema import codec
codec.RELEASED = MappingProxyType({**codec.RELEASED, "profile": frozenset()})
from sinks.commands import sink
sink()
"""

DYING = """
import os, signal
from sinks import letters
done = letters.done
def dying(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
letters.done = dying
from deploy.cli import main
main()
"""


async def test_what_a_newer_reader_understands_is_replayed_and_counts_once(ground, fleet, box):
    old = ground.start(OLD)
    await fleet.load(2)
    dead = [f"{r.topic}:{r.partition}:{r.offset}" for r in await read(ground, ground.prefix + RAW_PROFILES.name)]
    await until(lambda: metric(old, "perfstream_sink_dead_letters_total") == len(dead))
    old.send_signal(signal.SIGTERM)
    old.wait(10)
    ground.start()
    assert ground.query("SELECT count() FROM samples") == [(0,)]
    rows = box.list()
    assert sorted(row["place"] for row in rows) == sorted(dead)
    assert {(row["reason"], row["replayed"]) for row in rows} == {("unknown_version", "")}
    asked = box.run("replay", "--all")  # nobody answers
    assert asked.returncode != 0
    assert f"publish {len(dead)} letters" in asked.stderr
    assert len(await read(ground, ground.prefix + RAW_PROFILES.name)) == len(dead)
    nothing = box.run("replay")
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)
    # Killed between publishing and its last note: whoever comes next finds what is there.
    first, *_ = dead
    assert killed_before_its_last_note("deadletter", "replay", *box.where, first) == -signal.SIGKILL
    assert [row["replayed"] for row in box.list() if row["place"] == first] == ["?"]
    for _ in range(2):
        answer = box.run("replay", "--reason", "unknown_version", "--yes")
        assert answer.returncode == 0, answer.stderr
    assert "nothing to do" in answer.stdout
    await ground.until_stored(fleet)
    await asyncio.sleep(1)
    assert ground.stored() == ground.expected(fleet)
    raw = await read(ground, ground.prefix + RAW_PROFILES.name)
    again = {dict(r.headers)["replayed.from"].decode(): r for r in raw if "replayed.from" in dict(r.headers)}
    assert len(raw) == 2 * len(dead)
    assert sorted(again) == sorted(dead)
    originals = {f"{r.topic}:{r.partition}:{r.offset}": r for r in raw}
    for place, record in again.items():
        original = originals[place]
        assert (record.key, record.value, record.partition) == (original.key, original.value, original.partition)
        assert record.headers[:-1] == original.headers
    placed = {row["place"]: row["replayed"] for row in box.list()}
    assert placed == {place: f"{r.topic}:{r.partition}:{r.offset}" for place, r in again.items()}


def test_it_finds_the_stack_that_runs_and_says_in_one_line_what_is_wrong(broker, unique, tmp_path):
    none = perfstream("deadletter", "list", PERFSTREAM_WORKDIR=str(tmp_path))
    assert (none.returncode, none.stderr.count("\n")) == (1, 1)
    assert "--kafka" in none.stderr
    workdir.write(Path(tmp_path), workdir.Endpoints(kafka=broker.address, clickhouse=""))
    absent = perfstream("deadletter", "list", "--topic-prefix", unique, PERFSTREAM_WORKDIR=str(tmp_path))
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)
    assert f"no topic {unique}{DEAD_LETTERS.name}" in absent.stderr
    away = perfstream("deadletter", "list", "--kafka", f"127.0.0.1:{free_port()}")
    assert (away.returncode, away.stderr.count("\n")) == (1, 1), away.stderr
    assert "does not answer" in away.stderr
    wrong = perfstream("deadletter", "list", "--kafka", broker.address, "--since", "yesterday")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
