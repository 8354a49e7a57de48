"""``gadget --cluster``: every node's rows at once, the same that a node shows of itself."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from aiokafka import AIOKafkaProducer

from deploy.broker import free_port
from streams.schema.topics import RAW_EVENTS
from tests.integration.test_agent import Agent, known, topics
from tests.kernel.known import Known

__all__ = ["known", "topics"]
pytestmark = [pytest.mark.kernel, pytest.mark.services]
GADGET = (sys.executable, "-m", "deploy.cli", "gadget")
RUNS, FAILING = 97, 13


@pytest.fixture
def agents(broker, unique, topics, tmp_path):
    """Two agents, as of two nodes; both see this machine."""
    with contextlib.ExitStack() as stack:
        for node in ("n1", "n2"):
            directory = tmp_path / node
            directory.mkdir()
            settings = {"PERFSTREAM_NODE": node, "PERFSTREAM_AGENT_COLLECTORS": "exec,syscall"}
            stack.enter_context(Agent(directory, broker.address, unique, **settings).running())
        yield


class Gadget:
    """A gadget as a process, its output in a file."""

    def __init__(self, path, *arguments):
        self.path = path
        with path.open("wb") as out:
            self.process = subprocess.Popen([*GADGET, *arguments], stdout=out, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        # It misses nothing from now on: it says so by its heading, or on standard error.
        Agent.until(lambda: self.lines() or select.select([self.process.stderr], [], [], 0)[0])
        return self

    def lines(self):
        return self.path.read_text().splitlines()

    def rows(self):
        return [json.loads(line) for line in self.lines()]

    def end(self):
        """Press Ctrl-C; return what it says."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=15)
        assert self.process.returncode == 0, said
        return said

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def corrupt(broker, prefix):
    async def send():
        producer = AIOKafkaProducer(bootstrap_servers=broker.address)
        await producer.start()
        await producer.send_and_wait(prefix + RAW_EVENTS.name, b"no record of ours")
        await producer.stop()

    asyncio.run(send())


def test_every_node_is_shown_with_the_rows_that_it_shows_itself(broker, unique, agents, known, tmp_path):
    where = ("--cluster", "--kafka", broker.address, "--topic-prefix", unique, "--service", unique)
    trace, json_ = ("trace", "exec"), ("-o", "json")
    with (
        Gadget(tmp_path / "here", *trace, *json_, "--service", unique) as here,
        Gadget(tmp_path / "table", *trace, *where) as table,
        Gadget(tmp_path / "everywhere", *trace, *json_, *where) as everywhere,
        Gadget(tmp_path / "second", *trace, *json_, *where, "--node", "n2") as second,
        Gadget(tmp_path / "calls", "profile", "syscall", *where, *json_) as calls,
    ):
        corrupt(broker, unique)
        with Known(known, "exec", RUNS, FAILING, service=unique) as program:
            program.run()
            each = RUNS + 1  # the workload's own start, too
            for one, lines in ((here, each), (table, 2 * each + 1), (everywhere, 2 * each), (second, each)):
                Agent.until(lambda one=one, lines=lines: len(one.lines()) >= lines)
            time.sleep(4)  # the calls of the last execs are in the next interval, or the one after it
        said = table.end()
        for one in (here, everywhere, second, calls):
            one.end()

    def what(found):
        return Counter((row["pid"], row["detail"], row["result"], row["service"], row["comm"]) for row in found)

    assert len(here.rows()) == RUNS + 1
    assert Counter(row["node"] for row in everywhere.rows()) == {"n1": RUNS + 1, "n2": RUNS + 1}
    assert {row["cluster"] for row in everywhere.rows()} == {"c1"}
    for node in ("n1", "n2"):
        assert what(row for row in everywhere.rows() if row["node"] == node) == what(here.rows())
    assert {row["node"] for row in second.rows()} == {"n2"}
    assert what(second.rows()) == what(here.rows())
    assert here.rows()[0].keys() == everywhere.rows()[0].keys()

    shown = table.lines()[1:]
    assert len(shown) == 2 * (RUNS + 1)
    assert sum(" n1 " in line for line in shown) == RUNS + 1
    assert "0 lost, of 2 nodes, 1 records not readable" in said

    nodes = ("n1", "n2")
    waits = {row["node"]: row for row in calls.rows() if row["operation"] == "wait4"}
    sums = {node: (row["count"], sum(row["counts"])) for node, row in waits.items()}
    assert sums == dict.fromkeys(nodes, (RUNS, RUNS))


BURN_MS = 997


def test_stacks_of_a_node_are_added_up_over_intervals(broker, unique, topics, known, tmp_path):
    settings = {"PERFSTREAM_AGENT_COLLECTORS": "profile_cpu", "PERFSTREAM_AGENT_CPU_HZ": "199"}
    where = ("--cluster", "--kafka", broker.address, "--topic-prefix", unique, "--service", unique)
    with (
        Agent(tmp_path, broker.address, unique, **settings).running(),
        Gadget(tmp_path / "json", "profile", "cpu", *where, "-o", "json") as everything,
        Gadget(tmp_path / "folded", "profile", "cpu", *where, "-o", "folded", "--interval", "0.5") as folded,
    ):
        with Known(known, "burn", BURN_MS, service=unique) as program:
            program.run()
            # The last samples are in the next interval, or the one after it; nothing has come for longer than that.
            seen, since = 0, time.monotonic()
            while time.monotonic() - since < 3:
                if (now := len(folded.lines())) > seen:
                    seen, since = now, time.monotonic()
                time.sleep(0.1)
        everything.end()
        folded.end()
    rows = everything.rows()
    assert {(row["node"], row["type"], row["service"]) for row in rows} == {("n1", "cpu", unique)}
    assert len({row["stack"]["id"] for row in rows}) == len(rows)
    total = sum(row["value"] for row in rows)
    assert total == sum(int(line.rpartition(" ")[2]) for line in folded.lines())
    assert 0.7 < total / (BURN_MS * 1e6) < 1.3
    assert any(";five" in line for line in folded.lines())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trace", "exec", "--cluster", "--kafka", "{nobody}"), "Kafka at 127.0.0.1"),
        (("trace", "exec", "--cluster", "--kafka", "{kafka}", "--topic-prefix", "nothing."), "topics apply"),
        (("trace", "exec", "--node", "n1"), "--cluster"),
        (("profile", "runqlat", "--cluster", "--kafka", "{kafka}", "--pid", "1"), "--pid"),
    ],
)
def test_what_cannot_be_followed_is_said_in_one_line(broker, arguments, says):
    values = {"nobody": f"127.0.0.1:{free_port()}", "kafka": broker.address}
    command = [*GADGET, *(argument.format(**values) for argument in arguments)]
    done = subprocess.run(
        command, env=os.environ | {"PERFSTREAM_WORKDIR": "/nonexistent"}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert says in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
