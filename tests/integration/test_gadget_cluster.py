"""``gadget --cluster``: every node's rows at once, the same that a node shows of itself."""

import asyncio
import contextlib
import json
import os
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


@contextlib.contextmanager
def gadget(*arguments, ready):
    """A gadget that misses nothing from now on: it says so by its heading, or on standard error."""
    process = subprocess.Popen([*GADGET, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stream = process.stdout if ready == "heading" else process.stderr
        assert stream.readline(), process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process):
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 0, err
    return out, err


def corrupt(broker, prefix):
    async def send():
        producer = AIOKafkaProducer(bootstrap_servers=broker.address)
        await producer.start()
        await producer.send_and_wait(prefix + RAW_EVENTS.name, b"no record of ours")
        await producer.stop()

    asyncio.run(send())


def test_every_node_is_shown_with_the_rows_that_it_shows_itself(broker, unique, agents, known):
    where = ("--cluster", "--kafka", broker.address, "--topic-prefix", unique, "--service", unique)
    with (
        gadget("trace", "exec", "-o", "json", "--service", unique, ready="stderr") as here,
        gadget("trace", "exec", *where, ready="heading") as table,
        gadget("trace", "exec", "-o", "json", *where, ready="stderr") as everywhere,
        gadget("trace", "exec", "-o", "json", *where, "--node", "n2", ready="stderr") as second,
        gadget("profile", "syscall", *where, "-o", "json", ready="stderr") as calls,
    ):
        corrupt(broker, unique)
        with Known(known, "exec", RUNS, FAILING, service=unique) as program:
            program.run()
            time.sleep(3.5)
            lines, said = ended(table)
            counted, _ = ended(calls)
            rows = {name: [json.loads(line) for line in ended(process)[0].splitlines()]
                    for name, process in (("here", here), ("everywhere", everywhere), ("second", second))}  # fmt: skip

    def what(found):
        return Counter((row["pid"], row["detail"], row["result"], row["service"], row["comm"]) for row in found)

    assert len(rows["here"]) == RUNS + 1  # the workload's own start, too
    assert Counter(row["node"] for row in rows["everywhere"]) == {"n1": RUNS + 1, "n2": RUNS + 1}
    assert {row["cluster"] for row in rows["everywhere"]} == {"c1"}
    for node in ("n1", "n2"):
        assert what(row for row in rows["everywhere"] if row["node"] == node) == what(rows["here"])
    assert {row["node"] for row in rows["second"]} == {"n2"}
    assert what(rows["second"]) == what(rows["here"])
    assert rows["here"][0].keys() == rows["everywhere"][0].keys()

    assert len(lines.splitlines()) == 2 * (RUNS + 1)
    assert sum(" n1 " in line for line in lines.splitlines()) == RUNS + 1
    assert "0 lost, of 2 nodes, 1 records not readable" in said

    nodes = ("n1", "n2")
    waits = {row["node"]: row for row in map(json.loads, counted.splitlines()) if row["operation"] == "wait4"}
    sums = {node: (row["count"], sum(row["counts"])) for node, row in waits.items()}
    assert sums == dict.fromkeys(nodes, (RUNS, RUNS))


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
