"""The worker against a real broker: the windows equal what is in the raw topics, whatever dies."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.broker import free_port
from streams import topics_admin
from streams.schema import codec, stack_columns
from streams.schema.errors import SchemaError
from streams.schema.messages import LATENCY, PROFILE, TEXT, WORKLOAD, Interval
from streams.schema.stacks import frame_text, join
from streams.schema.topics import ALL, HOTSPOTS, LATENCY_WINDOWS, RAW_LATENCIES, RAW_PROFILES, schema_of

pytestmark = pytest.mark.services

SECOND = 1_000_000_000
WINDOW, GRACE, AHEAD = 60 * SECOND, 30 * SECOND, 10 * SECOND
PARTITIONS = 4
NAME = ("window_start_ns", "shard", "first_offset")
STACKS = [tuple(f"f{(i * k) % 23}" for k in range(1, 2 + i % 7)) for i in range(1, 60)]  # some recurse
STACK_COLUMN = stack_columns.entries([join([frame_text(f) for f in stack]) for stack in STACKS])  # fmt: skip


def text(values):
    return pa.array(values, pa.string()).dictionary_encode().cast(TEXT)


def columns(schema, n, **given):
    given = {name: text(value) if isinstance(value, list) else value for name, value in given.items()}
    for name in WORKLOAD:
        given.setdefault(name, text([""] * n))
    return pa.RecordBatch.from_arrays([given[name] for name in schema.names], schema=schema)


def profile(chance, start_ns, n=31):
    return columns(
        PROFILE, n,
        time_ns=pa.array([start_ns] * n, pa.int64()),
        service=[chance.choice("abc") for _ in range(n)],
        type=["cpu"] * n,
        unit=["nanoseconds"] * n,
        stack=pa.DictionaryArray.from_arrays(
            pa.array([chance.randrange(len(STACKS)) for _ in range(n)], pa.int32()), STACK_COLUMN
        ),
        value=pa.array([chance.randrange(1, 1000) for _ in range(n)], pa.int64()),
        period=pa.array([1] * n, pa.int64()),
    )  # fmt: skip


def latency(chance, start_ns, n=7):
    histograms = [{chance.randrange(976): chance.randrange(1, 99) for _ in range(5)} for _ in range(n)]
    return columns(
        LATENCY, n,
        time_ns=pa.array([start_ns] * n, pa.int64()),
        probe=["syscall"] * n,
        operation=[chance.choice(["read", "write", "futex"]) for _ in range(n)],
        buckets=pa.array([sorted(h) for h in histograms], pa.list_(pa.uint16())),
        counts=pa.array([[h[b] for b in sorted(h)] for h in histograms], pa.list_(pa.uint64())),
        count=pa.array([sum(h.values()) for h in histograms], pa.uint64()),
        sum_ns=pa.array([sum(b * c for b, c in h.items()) for h in histograms], pa.uint64()),
        max_ns=pa.array([max(h) for h in histograms], pa.uint64()),
        period=pa.array([1] * n, pa.uint32()),
    )  # fmt: skip


class Ground:
    """One test's topics, producer and workers."""

    def __init__(self, kafka, prefix, directory, seed):
        self.kafka, self.prefix, self.directory = kafka, prefix + ".", directory
        self.group = f"{prefix}-worker"
        self.chance = random.Random(seed)
        self.workers = []
        self.round = 0
        self.begin_ns = (time.time_ns() - 4 * 3600 * SECOND) // WINDOW * WINDOW

    async def __aenter__(self):
        await topics_admin.apply(
            {"bootstrap_servers": self.kafka}, [replace(t, name=self.prefix + t.name) for t in ALL], PARTITIONS
        )
        self.producer = AIOKafkaProducer(bootstrap_servers=self.kafka, enable_idempotence=True)
        await self.producer.start()
        return self

    async def __aexit__(self, *_):
        await self.producer.stop()
        for process in self.workers:
            if process.poll() is None:
                process.kill()
            process.wait()

    async def send(self, topic, schema, batch, partition, end_ns, headers=None, value=None):
        interval = Interval("test", "c", f"node-{partition}", "p", self.round, end_ns - 10 * SECOND, end_ns)
        encoded, given = codec.encode(schema, batch, interval)
        await self.producer.send_and_wait(
            self.prefix + topic.name, encoded if value is None else value, b"k", partition, headers=headers or given
        )

    async def load(self, rounds=10**9, until=None, pause_s=0.0):
        """Publish rounds of 7 s of event time; some messages come within the grace, a few are late."""
        for _ in range(rounds):
            if until is not None and until.is_set():
                return
            self.round += 1
            sends = []
            for partition in range(PARTITIONS):
                delay_s = self.chance.choice([0, 0, 0, 0, 5, 11, 19, 400])
                start_ns = max(self.begin_ns, self.begin_ns + (self.round * 7 - delay_s) * SECOND)
                at = partition, start_ns + 10 * SECOND
                sends.append(self.send(RAW_PROFILES, "profile", profile(self.chance, start_ns), *at))
                sends.append(self.send(RAW_LATENCIES, "latency", latency(self.chance, start_ns), *at))
            await asyncio.gather(*sends)
            await asyncio.sleep(pause_s)

    def start(self, program="from deploy.cli import main; main()", **environment):
        process_number = len(self.workers)
        port = free_port()
        command = [
            sys.executable, "-c", program, "worker", "--kafka", self.kafka, "--topic-prefix", self.prefix,
            "--group", self.group, "--http-port", str(port), "--datadir", str(self.directory / "faust"),
        ]  # fmt: skip
        settings = {
            "PERFSTREAM_WORKER_SESSION_TIMEOUT_S": "2", "PERFSTREAM_WORKER_HEARTBEAT_S": "0.5",
            "PERFSTREAM_WORKER_FLUSH_S": "0.3", "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        log = self.directory / f"worker-{process_number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=Path(__file__).parents[2],
                env={**os.environ, **settings, **environment},
            )  # fmt: skip
        process.port, process.log = port, log
        self.workers.append(process)
        return process

    def logs(self):
        return "\n".join(f"{p.log.name} ({p.poll()}): {p.log.read_text()[-1500:]}" for p in self.workers)

    async def _read(self, *topics):
        """Every record of the topics, partition by partition in order."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka, auto_offset_reset="earliest")
        await consumer.start()
        try:
            at = [TopicPartition(self.prefix + topic.name, p) for topic in topics for p in range(PARTITIONS)]
            consumer.assign(at)
            ends = await consumer.end_offsets(at)
            found = defaultdict(list)
            while [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
                for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                    found[tp] += records
            return found
        finally:
            await consumer.stop()

    async def truth(self):
        """What the raw topics say, by a plain model of windows, watermark, grace and clamped clocks."""
        sums = Counter()
        for tp, records in (await self._read(RAW_PROFILES, RAW_LATENCIES)).items():
            watermark = closed = -(2**63)
            for record in records:
                append = record.timestamp * 1_000_000
                try:
                    schema, interval, batch = codec.decode(record.headers, record.value, schema_of(tp.topic))
                except SchemaError:
                    continue

                def clamp(time_ns, append=append):
                    return append if time_ns > append + AHEAD else time_ns

                for row in batch.to_pylist():
                    start = clamp(row["time_ns"]) // WINDOW * WINDOW
                    late = int(start + WINDOW <= closed)
                    if schema == "profile":
                        functions = [frame.split("\t")[0] for frame in row["stack"]["frames"]]
                        at = start, tp.partition, late, row["service"]
                        sums[(*at, functions[-1], "self")] += row["value"]
                        for function in set(functions):
                            sums[(*at, function, "total")] += row["value"]
                    else:
                        at = start, tp.partition, late, interval.node, row["operation"]
                        sums[(*at, "count")] += row["count"]
                        sums[(*at, "sum_ns")] += row["sum_ns"]
                        sums[(*at, "max_ns")] = max(sums[(*at, "max_ns")], row["max_ns"])
                        for bucket, count in zip(row["buckets"], row["counts"], strict=True):
                            sums[(*at, bucket)] += count
                watermark = max(watermark, clamp(interval.end_ns))
                closed = max(closed, watermark - GRACE)
        return +sums

    async def results(self):
        """The sums over the latest state of each window; a repeat of a state must repeat its numbers."""
        latest = {}
        for records in (await self._read(HOTSPOTS, LATENCY_WINDOWS)).values():
            for record in records:
                schema, _, batch = codec.decode(record.headers, record.value)
                hot = schema == "hotspot"
                key = (*NAME, "service", "function") if hot else (*NAME, "node", "operation")
                for row in batch.to_pylist():
                    name = (schema, *(row[k] for k in key))
                    known = latest.get(name)
                    if known is None or known["last_offset"] < row["last_offset"]:
                        latest[name] = row
                    elif known["last_offset"] == row["last_offset"]:
                        assert known == row, "one state was published with two contents"
        sums = Counter()
        for row in latest.values():
            at = row["window_start_ns"], row["shard"], row["late"]
            if "function" in row:
                at = (*at, row["service"], row["function"])
                sums[(*at, "self")] += row["self"]
                sums[(*at, "total")] += row["total"]
            else:
                at = (*at, row["node"], row["operation"])
                sums[(*at, "count")] += row["count"]
                sums[(*at, "sum_ns")] += row["sum_ns"]
                sums[(*at, "max_ns")] = max(sums[(*at, "max_ns")], row["max_ns"])
                for bucket, count in zip(row["buckets"], row["counts"], strict=True):
                    sums[(*at, bucket)] += count
        return +sums

    async def exact(self, timeout_s=40):
        """Wait until the results equal the truth, and check that they stay so; returns the truth."""
        truth = await self.truth()
        deadline = time.monotonic() + timeout_s
        while (found := await self.results()) != truth:
            if time.monotonic() > deadline:
                wrong = {k: (truth[k], found[k]) for k in truth.keys() | found.keys() if truth[k] != found[k]}
                shown = sorted(wrong.items(), key=str)[:8]
                raise AssertionError(f"{len(wrong)} of {len(truth)} sums differ: {shown}\n{self.logs()}")
            await asyncio.sleep(0.7)  # each look reads everything, and takes its CPU from the worker
        await asyncio.sleep(1.0)
        assert await self.results() == truth
        return truth

    async def until(self, condition, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            await asyncio.sleep(0.1)


@pytest.fixture
async def ground(broker, unique, tmp_path):
    async with Ground(broker.address, unique, tmp_path, seed=11) as made:
        yield made


def get(process, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}{path}", timeout=2) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()
    except OSError:
        return ""


def metric(process, name):
    lines = get(process, "/metrics").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"perfstream_worker_{name}"))


def end(process):
    """SIGTERM; returns (status, seconds)."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    return process.wait(10), time.monotonic() - begun


async def test_windows_are_exact_and_bad_input_is_counted_and_stops_nothing(ground):
    await ground.load(30)
    now = time.time_ns()
    good = profile(ground.chance, now - 20 * SECOND)
    await ground.send(RAW_PROFILES, "profile", profile(ground.chance, now + 86_400 * SECOND), 0, now + 86_410 * SECOND)
    for partition in range(PARTITIONS):
        interval = Interval("test", "c", "n", "p", 0, now, now)
        value, headers = codec.encode("profile", good, interval)
        unknown = [(k, b"profile/99" if k == "schema" else v) for k, v in headers]
        await ground.send(RAW_PROFILES, "profile", good, partition, now, headers=unknown)
        await ground.send(RAW_PROFILES, "profile", good, partition, now, value=value[:-50])
        await ground.send(RAW_PROFILES, "profile", good, partition, now)
    await ground.send(RAW_LATENCIES, "profile", good, 0, now)  # of another topic
    await ground.load(20)
    process = ground.start()
    truth = await ground.exact()
    late = sum(count for key, count in truth.items() if key[2] and key[-1] == "self")
    assert late > 0
    await ground.until(lambda: metric(process, "messages_total") == 50 * PARTITIONS * 2 + PARTITIONS + 1)
    assert metric(process, 'bad_records_total{reason="unknown_version"') == PARTITIONS
    assert metric(process, 'bad_records_total{reason="corrupt"') == PARTITIONS + 1
    assert metric(process, "clamped_rows_total") == 31
    assert metric(process, "late_rows_total") > 0
    assert metric(process, "lag_messages{") == 0
    assert json.loads(get(process, "/healthz")) == {
        "ok": True,
        "checks": dict.fromkeys(("progress", "kafka", "flush", "lag"), ""),
    }
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    skipped = [line for line in lines if "record skipped" in line["message"]]
    assert len(skipped) == 3  # once for each topic and reason, with the place
    assert {line["reason"] for line in skipped} == {"unknown_version", "corrupt"}
    assert all({"topic", "partition", "offset"} <= line.keys() for line in skipped)
    assert max(key[0] for key in truth) <= time.time_ns() + AHEAD
    status, seconds = end(process)
    assert status == 0
    assert seconds < 5


PATCHED = """
import os, signal, sys
arguments, sys.argv = sys.argv, sys.argv[:1]
from streams import app
from streams.app import Worker
def die():
    os.kill(os.getpid(), signal.SIGKILL)
{patch}
sys.argv = arguments
from deploy.cli import main
main()
"""

HALF_PUBLISHED = """
publish, sent = Worker._publish, []
async def dying(self, *rest):
    sent.append(1)
    if len(sent) == 5:
        await self.app.producer.flush()
        die()
    return await publish(self, *rest)
Worker._publish = dying
"""

NOT_COMMITTED = """
async def dying(self, commits):
    die()
Worker._commit = dying
"""

COMMITTED = """
import asyncio
commit, publish = Worker._commit, Worker._publish
async def slow(self, *rest):  # a broker that takes its time to acknowledge
    async def later():
        await asyncio.sleep(0.5)
        await asyncio.gather(*await publish(self, *rest))
    return [asyncio.ensure_future(later())]
Worker._publish = slow
async def dying(self, commits):
    await commit(self, commits)
    die()
Worker._commit = dying
"""


async def test_windows_are_exact_after_many_kills_under_load(ground):
    done = asyncio.Event()
    loading = asyncio.create_task(ground.load(until=done, pause_s=0.15))
    for patch in (None, HALF_PUBLISHED, None, NOT_COMMITTED, None, COMMITTED, None):
        if patch:
            process = ground.start(PATCHED.format(patch=patch))
            await ground.until(lambda: process.poll() is not None)  # noqa: B023 - awaited here
            assert process.returncode == -signal.SIGKILL, ground.logs()
            continue
        process = ground.start()
        await ground.until(lambda: metric(process, "messages_total") > 0)  # noqa: B023
        await asyncio.sleep(ground.chance.uniform(0.1, 1.5))
        process.kill()
        process.wait()
    done.set()
    await loading
    process = ground.start()
    await ground.exact()
    assert metric(process, "messages_total") < 2 * ground.round * PARTITIONS  # commits were used


async def test_windows_are_exact_while_a_second_worker_joins_and_leaves(ground):
    done = asyncio.Event()
    loading = asyncio.create_task(ground.load(until=done, pause_s=0.15))
    first = ground.start()
    await ground.until(lambda: metric(first, "result_rows_total") > 0)
    second = ground.start()
    await ground.until(lambda: metric(second, "result_rows_total") > 0)
    await asyncio.sleep(1)
    status, _ = await asyncio.to_thread(end, second)
    assert status == 0, ground.logs()
    third = ground.start()
    await ground.until(lambda: metric(third, "result_rows_total") > 0)
    await asyncio.sleep(1)
    first.kill()
    first.wait()
    fourth = ground.start()
    await ground.until(lambda: metric(fourth, "result_rows_total") > 0)
    done.set()
    await loading
    await ground.exact()
    assert third.poll() is None, ground.logs()
    assert fourth.poll() is None, ground.logs()


async def test_windows_are_exact_after_a_restart_of_the_broker(broker, ground):
    done = asyncio.Event()
    loading = asyncio.create_task(ground.load(until=done, pause_s=0.1))
    process = ground.start()
    await ground.until(lambda: metric(process, "result_rows_total") > 0)
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(2)
    await asyncio.to_thread(broker.start)
    rows = metric(process, "result_rows_total")
    with contextlib.suppress(AssertionError):
        await ground.until(lambda: process.poll() is not None or metric(process, "result_rows_total") > rows)
    if process.poll() is not None:  # allowed: whoever runs it starts it again
        assert process.returncode == 1, ground.logs()
        ground.start()
    done.set()
    await loading
    await ground.exact()


CRASHING = """
import time
from streams.schema import codec
decode, seen = codec.decode, []
def breaking(*given):
    time.sleep(0.03)
    seen.append(1)
    if len(seen) > 150:
        raise RuntimeError("broken on purpose")
    return decode(*given)
codec.decode = breaking
"""


async def test_an_agent_that_crashes_ends_the_worker_and_loses_nothing(ground):
    await ground.load(30)
    broken = ground.start(PATCHED.format(patch=CRASHING))
    await ground.until(lambda: metric(broken, "lag_messages{") > 0)
    await ground.until(lambda: broken.poll() is not None)
    assert broken.returncode == 1
    assert "worker ends: broken on purpose" in broken.log.read_text()
    ground.start()
    await ground.exact()


def run(kafka, prefix, *more):
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", "worker", "--kafka", kafka, "--topic-prefix", prefix, "--http-port", "0",
         *more],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


async def test_a_worker_that_cannot_start_says_why_in_one_line(broker, ground, tmp_path):
    missing = await asyncio.to_thread(run, ground.kafka, "nothing.")
    assert missing.returncode == 1
    assert missing.stderr.startswith("perfstream: topics are missing: nothing.perfstream.raw.profiles")
    assert "run 'perfstream topics apply' first" in missing.stderr
    assert missing.stderr.count("\n") == 1
    small = await asyncio.to_thread(run, ground.kafka, ground.prefix, "--partitions", "9")
    assert small.returncode == 1
    assert "has 4 partitions where 9 are set" in small.stderr
    assert small.stderr.count("\n") == 1
    absent = await asyncio.to_thread(run, "127.0.0.1:1", ground.prefix)
    assert absent.returncode == 1
    assert "127.0.0.1:1 cannot be used: connection refused" in absent.stderr.splitlines()[-1]
    assert "Traceback" not in absent.stderr


LEAVES = """
import asyncio
from faust.types import TP
from prometheus_client import REGISTRY, generate_latest
from runtime.observe import Health
from streams.app import Worker
from streams.hotspots import Hotspots
from streams.metrics import WorkerMetrics
from streams.schema.topics import RAW_PROFILES
from streams.settings import WorkerSettings
from streams.watermark import Snapshot
from streams.windows import PartitionWindows

async def main():
    settings = WorkerSettings()
    worker = Worker(settings, Health(), WorkerMetrics())
    for number in range(3):
        tp = TP(RAW_PROFILES.name, number)
        windows = PartitionWindows(Hotspots(9), settings.windows, number, Snapshot(0, 0, 0), unpublished_rows=7)
        worker._states[tp] = windows
    worker._highwater = lambda tp: 11
    due = worker._partials_due
    def revoked(tp, windows, lag):  # as it happens while the first one's results are on their way
        if worker._states.pop(TP(RAW_PROFILES.name, 1), None):
            worker.metrics.forget(RAW_PROFILES.name, 1)
        return due(tp, windows, lag)
    worker._partials_due = revoked
    await worker._flush()
    print(generate_latest(REGISTRY).decode())

asyncio.run(main())
"""


def test_a_partition_that_leaves_during_a_flush_leaves_no_figures():
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = {line.split('partition="')[1][0] for line in done.stdout.splitlines() if "_lag_messages{" in line}
    assert told == {"0", "2"}
