"""The agent as a process: real programs, real Kafka. What it publishes, what it says when something is missing."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from collectors.catalogue import chosen
from collectors.spool import Spool
from deploy.broker import free_port
from streams import topics_admin
from streams.schema import codec
from streams.schema.topics import RAW
from tests.kernel.known import PROGRAMS, Known, build

pytestmark = [pytest.mark.kernel, pytest.mark.services]
COMMAND = (sys.executable, "-m", "deploy.cli", "agent")
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return build(PROGRAMS / "known.c", tmp_path_factory.mktemp("known") / "perfknown")


@pytest.fixture
def topics(broker, unique):
    wanted = [replace(topic, name=unique + topic.name, partitions=2) for topic in RAW]
    asyncio.run(topics_admin.apply({"bootstrap_servers": broker.address}, wanted))
    return [topic.name for topic in wanted]


class Agent:
    def __init__(self, tmp_path, kafka, prefix, **settings):
        self.port = free_port()
        self.log = tmp_path / "agent.log"
        self.environ = {
            **os.environ,
            "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "PERFSTREAM_TOPIC_PREFIX": prefix,
            "PERFSTREAM_SPOOL_DIRECTORY": str(tmp_path / "spool"),
            "PERFSTREAM_HTTP_PORT": str(self.port),
            "PERFSTREAM_AGENT_INTERVAL_S": "1",
            "PERFSTREAM_AGENT_BUDGET_PERCENT": "100",
            "PERFSTREAM_CLUSTER": "c1",
            "PERFSTREAM_NODE": "n1",
            **settings,
        }

    @contextmanager
    def running(self, *before):
        with self.log.open("ab") as log:
            process = subprocess.Popen([*before, *COMMAND], env=self.environ, stderr=log)
        try:
            self.until(lambda: self.get("/healthz")[0] or process.poll() is not None)
            assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def end(self, process):
        """End it cleanly; what a slow broker left in the spool is sent by one that is started for it."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        spool = Spool(Path(self.environ["PERFSTREAM_SPOOL_DIRECTORY"]))
        left = spool.loads().messages
        spool.close()
        if left:
            with self.running() as again:
                self.until(lambda: self.metrics()["perfstream_agent_spool_messages"] == 0)
                self.end(again)

    def get(self, path):
        """Return (status, body); status 0 when nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self):
        lines = (line for line in self.get("/metrics")[1].splitlines() if line and not line.startswith("#"))
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}

    @staticmethod
    def until(condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.05)


def everything(broker, topics):
    """Return every decoded message of the topics."""

    async def read():
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=broker.address, auto_offset_reset="earliest")
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            found = []
            for partition, end in ends.items():
                while await consumer.position(partition) < end:
                    for records in (await consumer.getmany(partition, timeout_ms=500)).values():
                        found += [codec.decode(record.headers, record.value) for record in records]
            return found
        finally:
            await consumer.stop()

    return asyncio.run(read())


def test_all_collectors_publish_and_a_clean_end_loses_nothing(tmp_path, broker, topics, unique, known):
    agent = Agent(tmp_path, broker.address, unique)
    service = f"svc-{unique}"
    runs, failing = 97, 13
    with agent.running() as process:
        agent.until(lambda: agent.get("/healthz")[0] == 200, 15)
        with Known(known, "exec", runs, failing, service=service) as program:
            program.run()
            # No boundary is waited for: what the last interval holds must come out at the end.
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert time.monotonic() - began < 8
    found = everything(broker, topics)
    by_collector = Counter(interval.collector for _, interval, _ in found)
    assert set(by_collector) >= {"profile_cpu", "offcpu", "runqlat", "syscall", "exec", "exit"}
    assert {(interval.cluster, interval.node) for _, interval, _ in found} == {("c1", "n1")}
    for name in by_collector:
        mine = sorted((i for _, i, _ in found if i.collector == name), key=lambda i: i.sequence)
        assert [i.sequence for i in mine] == list(range(len(mine)))
        assert all(earlier.end_ns <= later.start_ns for earlier, later in itertools.pairwise(mine))
        assert all(i.end_ns % 1_000_000_000 == 0 for i in mine[:-1]), "intervals end at the clock's seconds"
    execs = [row for _, i, batch in found if i.collector == "exec" for row in batch.to_pylist()]
    assert sum(row["service"] == service and row["ppid"] == program.pid for row in execs) == runs
    assert sum(i.lost for _, i, _ in found if i.collector == "exec") == 0
    waits = [row for _, i, batch in found if i.collector == "syscall" for row in batch.to_pylist()]
    assert sum(r["count"] for r in waits if r["service"] == service and r["operation"] == "wait4") >= runs


def test_without_capabilities_the_agent_goes_on_and_says_what_is_missing(tmp_path, broker, topics, unique):
    agent = Agent(tmp_path, broker.address, unique)
    with agent.running(*NO_CAPABILITIES) as process:
        status, body = agent.get("/healthz")
        assert status == 503
        why = json.loads(body)["checks"]["collectors"]
        assert "profile_cpu" in why
        assert "run as root" in why
        up = {name: value for name, value in agent.metrics().items() if "collector_up" in name}
        assert len(up) == len(chosen(()))
        assert not any(up.values())
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_kafka_away_is_told_and_nothing_is_lost(tmp_path, own_broker, unique):
    names = [replace(topic, name=unique + topic.name, partitions=2) for topic in RAW]
    asyncio.run(topics_admin.apply({"bootstrap_servers": own_broker.address}, names))
    agent = Agent(tmp_path, own_broker.address, unique, PERFSTREAM_AGENT_COLLECTORS="runqlat,exec")
    with agent.running() as process:
        agent.until(lambda: agent.metrics().get("perfstream_agent_ack_seconds_count", 0) > 0)
        own_broker.kill()
        agent.until(lambda: "Kafka" in json.loads(agent.get("/healthz")[1])["checks"]["kafka"], 15)
        assert agent.get("/healthz")[0] == 503
        agent.until(lambda: agent.metrics()["perfstream_agent_spool_messages"] >= 3)
        own_broker.start()
        agent.until(lambda: agent.get("/healthz")[0] == 200, 30)
        agent.end(process)
    found = [interval for _, interval, _ in everything(own_broker, [topic.name for topic in names])]
    mine = [i.sequence for i in found if i.collector == "runqlat"]
    assert sorted(mine) == list(range(len(mine)))
    assert sum(i.lost for i in found) == 0


CALLER = """
import ctypes, os, sys, time
futex, word = ctypes.CDLL(None).syscall, ctypes.byref(ctypes.c_int(0))
FUTEX, WAIT_PRIVATE, OTHER_VALUE = ctypes.c_long(202), 128, 1
print("ready", flush=True)
sys.stdin.readline()
calls, began = 0, time.monotonic()
while not os.path.exists(sys.argv[1]):  # 100,000 waits a second, each over at once
    for _ in range(1000):
        futex(FUTEX, word, WAIT_PRIVATE, OTHER_VALUE, None)
    calls += 1000
    time.sleep(max(0, began + calls / 100_000 - time.monotonic()))
print('{"calls": %d}' % calls, flush=True)
sys.stdin.readline()
"""


def test_over_its_budget_it_samples_says_so_and_the_sums_stay_right(tmp_path, broker, topics, unique):
    # At full effort so many waits cost more, at the least effort less, also while others work: unlike all system calls
    # of the machine, waits for locks are few, and this collector is never stopped.
    cores = 0.03
    percent = cores * 100 / len(os.sched_getaffinity(0))
    agent = Agent(
        tmp_path, broker.address, unique,
        PERFSTREAM_AGENT_COLLECTORS="futex", PERFSTREAM_AGENT_BUDGET_PERCENT=str(percent),
    )  # fmt: skip
    service, enough = f"svc-{unique}", tmp_path / "enough"
    with agent.running() as process, Known(sys.executable, "-c", CALLER, enough, service=service) as program:
        program.go()
        agent.until(lambda: agent.metrics()['perfstream_agent_effort{collector="futex"}'] < 1)
        used = []
        for _ in range(8):
            time.sleep(1)
            used.append(agent.metrics()["perfstream_agent_budget_used"])
        enough.touch()
        calls = program.answer()["calls"]
        agent.end(process)
    rows = [
        row for _, _, batch in everything(broker, topics) for row in batch.to_pylist()
        if row["service"] == service and row["operation"] == "wait changed"
    ]  # fmt: skip
    periods = [row["period"] for row in sorted(rows, key=lambda row: row["time_ns"])]
    assert periods[0] == 1
    assert periods[-1] > 1
    assert sorted(used)[2] < 1.1, f"it does not keep to its budget: {used}"
    # Gaps are drawn, so the count has at most the variance of one draw for each call.
    assert abs(sum(row["count"] for row in rows) - calls) < 5 * (calls * max(periods)) ** 0.5


def test_what_is_given_up_for_the_budget_is_named_and_costs_nothing_any_more(tmp_path, broker, topics, unique):
    agent = Agent(
        tmp_path, broker.address, unique,
        PERFSTREAM_AGENT_COLLECTORS="syscall,exec", PERFSTREAM_AGENT_BUDGET_PERCENT="0.01",
    )  # fmt: skip
    cost = 'perfstream_agent_kernel_cores{collector="syscall"}'
    with agent.running() as process:
        agent.until(lambda: agent.metrics().get(cost, 0) > 0)
        agent.until(lambda: agent.metrics()['perfstream_agent_effort{collector="syscall"}'] == 0)
        agent.until(lambda: agent.metrics()[cost] == 0, 5)
        said = json.loads(agent.get("/healthz")[1])["checks"]["collectors"]
        assert said == "syscall off: given up to keep to the CPU budget (agent.budget_percent)"
        assert agent.metrics()['perfstream_agent_collector_up{collector="exec"}'] == 1
        agent.end(process)


@pytest.mark.parametrize(
    ("variable", "value", "status", "says"),
    [
        ("PERFSTREAM_AGENT_COLLECTORS", "nonsense", 2, "no collector 'nonsense'"),
        ("PERFSTREAM_AGENT_INTERVAL_S", "soon", 1, "PERFSTREAM_AGENT_INTERVAL_S"),
        ("PERFSTREAM_SPOOL_DIRECTORY", "/proc/nowhere", 1, "PERFSTREAM_SPOOL_DIRECTORY"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, unique, variable, value, status, says):
    agent = Agent(tmp_path, "127.0.0.1:1", unique, **{variable: value})
    done = subprocess.run(COMMAND, env=agent.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
