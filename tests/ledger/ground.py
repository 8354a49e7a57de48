"""The processes of a run: each can be killed and started again, and is started again when it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import KafkaError

from deploy.broker import Broker, free_port
from runtime.settings import ClickHouseSettings
from sinks.client import connect
from sinks.migrate import migrate
from streams import topics_admin
from streams.schema import codec
from streams.schema.topics import ALL, RAW, RAW_LATENCIES, RAW_PROFILES, RESULTS
from tests.integration.conftest import start_store
from tests.ledger import agent
from tests.ledger.rows import KINDS, STEP_NS, Sums, World, start_of_time

ROOT = Path(__file__).parents[2]
PREFIX = "ledger."
PARTITIONS = 4
WORKED = (RAW_PROFILES, RAW_LATENCIES)
SETTINGS = {
    "PERFSTREAM_SESSION_TIMEOUT_MS": "2000", "PERFSTREAM_BATCH_LINGER_S": "0.2",
    "PERFSTREAM_BATCH_INSERT_TIMEOUT_S": "10",
    "PERFSTREAM_WORKER_SESSION_TIMEOUT_S": "2", "PERFSTREAM_WORKER_HEARTBEAT_S": "0.5",
    "PERFSTREAM_WORKER_FLUSH_S": "0.3", "PERFSTREAM_KAFKA_OPTIONS": "metadata_max_age_ms=3000",
    "PYTHONWARNINGS": "ignore",
}  # fmt: skip


@dataclass
class Part:
    """One killable process."""

    name: str
    command: list[str]
    log: Path
    port: int = 0
    process: subprocess.Popen | None = None
    wanted: bool = False
    ended: list[int] = field(default_factory=list)

    def start(self) -> None:
        self.wanted = True
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, **SETTINGS}
            )

    def end(self, *, kill: bool) -> None:
        self.wanted = False
        if self.process is not None and self.process.poll() is None:
            self.process.kill() if kill else self.process.terminate()
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def tend(self) -> None:
        """Start again what has ended by itself."""
        if self.wanted and self.process is not None and self.process.poll() is not None:
            self.ended.append(self.process.returncode)
            self.start()

    def metric(self, *names: str) -> float | None:
        """Return the sum of metrics; None when the process does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


class Ground:
    """Broker, store, two workers, two sinks and the agent, in one directory."""

    def __init__(
        self, directory: Path, seed: int, nodes: int = 5, pause_s: float = 0.01, spool_bytes: int = 1 << 28
    ) -> None:
        self.directory = directory
        self.world = World(seed, start_of_time())
        self.nodes = nodes
        self.broker = Broker(directory / "kafka", free_port(), free_port(), heap="384m")
        self.store_port = free_port()
        self.store = None
        self.dsn = f"http://127.0.0.1:{self.store_port}/ledger"
        kafka = ["--kafka", self.broker.address, "--topic-prefix", PREFIX]
        self.parts = {}
        for name in ("worker-1", "worker-2", "sink-1", "sink-2"):
            kind, port = name.split("-")[0], free_port()
            special = ["--dsn", self.dsn] if kind == "sink" else ["--datadir", str(directory / name)]
            command = [sys.executable, "-m", "deploy.cli", kind, *kafka, *special, "--group", f"ledger-{kind}",
                       "--http-port", str(port)]  # fmt: skip
            self.parts[name] = Part(name, command, directory / f"{name}.log", port)
        where = self.broker.address, PREFIX, directory / "agent"
        given = (*where, seed, self.world.begin_ns, nodes, pause_s, spool_bytes)
        self.parts["agent"] = Part(
            "agent", [sys.executable, "-m", "tests.ledger.agent", *map(str, given)], directory / "agent.log"
        )

    def start(self) -> None:
        (self.directory / "agent").mkdir()
        self.broker.start(120)
        self.start_store()
        options = {"bootstrap_servers": self.broker.address}
        topics = [replace(topic, name=PREFIX + topic.name) for topic in ALL]
        asyncio.run(topics_admin.apply(options, topics, PARTITIONS))
        migrate(ClickHouseSettings(dsn=self.dsn))
        for part in self.parts.values():
            part.start()

    def start_store(self) -> None:
        self.store = start_store(self.directory / "store", port=self.store_port, wait_s=120)

    def kill_store(self) -> None:
        self.store.process.kill()
        self.store.process.wait()

    def tend(self) -> None:
        for part in self.parts.values():
            part.tend()

    def stop(self) -> None:
        for part in self.parts.values():
            part.end(kill=True)
        if self.store is not None:
            self.kill_store()
        self.broker.kill()

    def finish_publishing(self, timeout_s: float = 90) -> None:
        """Let the agent send what waits, and end."""
        (self.directory / "agent" / "stop").touch()
        part = self.parts["agent"]
        deadline = time.monotonic() + timeout_s
        while part.process.poll() != 0:
            if time.monotonic() > deadline:
                raise AssertionError(f"the agent did not send everything: {part.log.read_text()[-1000:]}")
            self.tend()
            time.sleep(0.1)
        part.wanted = False

    def add_partitions(self, topics, count: int) -> None:
        async def add() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.address)
            await admin.start()
            try:
                await admin.create_partitions({PREFIX + topic.name: NewPartitions(count) for topic in topics})
            finally:
                await admin.close()

        asyncio.run(add())

    def reset_groups(self) -> None:
        """Set both groups to the beginning of every topic, as an operator does; their members have ended."""
        time.sleep(2.5)  # until the sessions of the dead end; the client would say each try aloud
        asyncio.run(self._reset("ledger-sink", (*RAW, *RESULTS)))
        asyncio.run(self._reset("ledger-worker", WORKED))

    async def _reset(self, group: str, topics) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.address, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            at = await self._partitions(topics)
            consumer.assign(at)
            deadline = time.monotonic() + 30
            while True:
                try:
                    await consumer.commit({tp: OffsetAndMetadata(0, "") for tp in at})
                except KafkaError:  # until the session of the last member ends
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.2)
                else:
                    return
        finally:
            await consumer.stop()

    async def _partitions(self, topics) -> list[TopicPartition]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.address)
        await admin.start()
        try:
            described = await admin.describe_topics([PREFIX + topic.name for topic in topics])
        finally:
            await admin.close()
        return [TopicPartition(each["topic"], p["partition"]) for each in described for p in each["partitions"]]

    def published(self) -> list[tuple[int, str, int]]:
        """Return (node, kind, number) of every message in the raw topics, in no order."""
        return asyncio.run(self._published())

    async def _published(self) -> list[tuple[int, str, int]]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.address)
        await consumer.start()
        found = []
        try:
            at = await self._partitions(RAW)
            consumer.assign(at)
            await consumer.seek_to_beginning(*at)
            ends = await consumer.end_offsets(at)
            while [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        schema, interval = codec.decode_headers(record.headers)
                        number, rest = divmod(interval.start_ns - self.world.begin_ns, STEP_NS)
                        assert rest == 0
                        found.append((int(interval.node.removeprefix("node-")), schema, number))
        finally:
            await consumer.stop()
        return found

    def journals(self) -> tuple[set, set]:
        """Return the messages that were published for certain, and those that may have been."""
        certain, uncertain = set(), set()
        for node in range(self.nodes):
            for kind in KINDS:
                yes, perhaps = agent.read(agent.journal_path(self.directory / "agent", node, kind))
                certain |= {(node, kind, number) for number in yes}
                uncertain |= {(node, kind, number) for number in perhaps}
        return certain, uncertain

    def owed(self) -> int:
        """Return how many dropped events the spools have yet to report."""
        ledgers = (self.directory / "agent").glob("spool-*/ledger.json")
        return sum(sum(json.loads(path.read_text())["owed"].values()) for path in ledgers)

    def ledger(self, *, dropped: bool = False) -> Sums:
        """Return the sums of what was published, after checking that the raw topics hold it once.

        Args:
            dropped: messages may be missing, because the spools' bound was exceeded.

        Raises:
            AssertionError: a message is missing or twice.
        """
        found = self.published()
        certain, uncertain = self.journals()
        twice = len(found) - len(set(found))
        missing, foreign = set() if dropped else certain - set(found), set(found) - certain - uncertain
        if twice or missing or foreign:
            raise AssertionError(
                f"raw topics: {twice} messages twice, {len(missing)} missing, {len(foreign)} never published"
            )
        sums = Sums(self.world)
        for message in found:
            sums.add(*message)
        return sums

    def idle(self) -> bool:
        """Return whether every member that should run answers and has nothing left to do."""
        self.tend()
        for part in self.parts.values():
            if part.wanted and part.name != "agent":
                kind = f"perfstream_{part.name.split('-')[0]}_"
                left = part.metric(kind + "lag_messages{", kind + "unpublished_rows", kind + "waiting_bytes ")
                if left is None or left > 0:
                    return False
        return True

    def client(self):
        return connect(ClickHouseSettings(dsn=self.dsn))

    def logs(self) -> str:
        words = []
        for part in self.parts.values():
            with contextlib.suppress(OSError):
                words.append(f"{part.name} ended by itself with {part.ended}: {part.log.read_text()[-700:]}")
        return "\n".join(words)
