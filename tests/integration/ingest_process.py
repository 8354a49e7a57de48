"""A running ``perfstream ingest``, and what it has put into Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from aiokafka import AIOKafkaConsumer

from deploy.broker import free_port
from streams import topics_admin
from streams.schema import codec, stacks
from streams.schema.topics import RAW_PROFILES


class Ingest:
    """Starts at once; ``stop`` ends it. ``environ`` adds settings."""

    def __init__(self, directory: Path, kafka: str, prefix: str, **environ: str) -> None:
        self.port, self.observe_port = free_port(), free_port()
        self.kafka, self.prefix = kafka, prefix
        self.log = directory / "ingest.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PERFSTREAM_")}
        environment |= {"PERFSTREAM_NODE": "here", "PERFSTREAM_CLUSTER": "lab", "PERFSTREAM_INGEST_GRPC_PORT": "-1"}
        environment |= environ
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "ingest", "--port", str(self.port), "--kafka", kafka,
                 "--http-port", str(self.observe_port), "--topic-prefix", prefix],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment,
                cwd=Path(__file__).parents[2], start_new_session=True,
            )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until_well(self, timeout_s: float = 30.0) -> Ingest:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended at once: {self.log.read_text()[-2000:]}")
            health = f"http://127.0.0.1:{self.observe_port}/healthz"
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5) as answer:
                if json.loads(answer.read())["ok"]:
                    return self
            time.sleep(0.05)
        raise RuntimeError(f"it is not well: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def post(self, path: str, body: bytes = b"", content_type: str = "", headers=None,
             tls: ssl.SSLContext | None = None, **parameters: object) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        """POST; returns (status, headers, body) of any answer."""
        kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
        connection = kind("127.0.0.1", self.port, timeout=60, **({"context": tls} if tls else {}))
        target = path + ("?" + urlencode(parameters) if parameters else "")
        given = {"Content-Type": content_type} if content_type else {}
        try:
            connection.request("POST", target, body, {**given, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def ingest(self, body: bytes, content_type: str = "", **parameters: object) -> int:
        """POST to /ingest; returns the status."""
        return self.post("/ingest", body, content_type, **parameters)[0]

    def metric(self, name: str) -> float:
        """Return one metric's value, 0 when it does not exist yet."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.observe_port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"perfstream_ingest_{name} "):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    def messages(self):
        """Return (interval, batch) of every message in the topic."""
        return asyncio.run(self._messages())

    async def _messages(self):
        consumer = AIOKafkaConsumer(
            self.prefix + RAW_PROFILES.name, bootstrap_servers=self.kafka, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            at = sorted(consumer.assignment())
            ends = await consumer.end_offsets(at)
            found = []
            for partition in at:
                while await consumer.position(partition) < ends[partition]:
                    for records in (await consumer.getmany(partition, timeout_ms=1000)).values():
                        found += [codec.decode(one.headers, one.value, "profile")[1:] for one in records]
            return found
        finally:
            await consumer.stop()

    def rows(self, service: str) -> list[dict]:
        """Return the rows of one service, ``stack`` as function names beside ``frames``, with cluster and node."""
        out = []
        for interval, batch in self.messages():
            for row in batch.to_pylist():
                if row["service"] == service:
                    frames = stacks.split(row["stack"]["frames"])
                    whose = {"cluster": interval.cluster, "node": interval.node}
                    out.append({**row, "frames": frames, "stack": [frame.function for frame in frames], **whose})
        return out

    def sums(self, service: str) -> dict[tuple[str, str], int]:
        """Return {(type, leaf function): sum of values} of one service."""
        out: dict[tuple[str, str], int] = {}
        for row in self.rows(service):
            key = row["type"], row["stack"][-1]
            out[key] = out.get(key, 0) + row["value"]
        return out


def create_topic(broker, prefix: str) -> None:
    """Create the topic that an endpoint with this prefix publishes to."""
    topic = dataclasses.replace(RAW_PROFILES, name=prefix + RAW_PROFILES.name)
    asyncio.run(topics_admin.apply({"bootstrap_servers": broker.address}, [topic]))


@contextlib.contextmanager
def serving(broker, directory: Path, prefix: str):
    """Run an endpoint that is well, with a topic of its own."""
    create_topic(broker, prefix)
    running = Ingest(directory, broker.address, prefix)
    try:
        yield running.until_well()
    finally:
        running.stop()
