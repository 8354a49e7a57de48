"""How fast the worker is back after SIGKILL under load, and how much faster than the load it catches up."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator

from aiokafka import AIOKafkaProducer

from deploy.stack import status
from deploy.stack.supervisor import Stack
from streams.schema.topics import RAW_PROFILES
from tests.bench.load import SECOND, Population, Shape, message
from tests.bench.pipeline import stack

# 20 nodes with 5,000 rows each 10 s, evenly: two messages, 10,000 rows a second.
SHAPE = Shape()
PER_SECOND = SHAPE.nodes / SHAPE.interval_s
KILLS = 3
AWAY_S = 40.0
_LIMIT_S = 120.0


class Load(threading.Thread):
    """Publishes one node's interval after the other at a steady rate; ``sent`` counts what Kafka has acknowledged."""

    def __init__(self, kafka: str) -> None:
        super().__init__(name="load", daemon=True)
        self._kafka = kafka
        self._population = Population(SHAPE, seed=3)
        self.sent = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        asyncio.run(self._publish())

    async def _publish(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._kafka, max_request_size=16 * 1024 * 1024)
        await producer.start()
        began, number = time.monotonic(), 0
        try:
            while not self.stopped.is_set():
                node, interval = number % SHAPE.nodes, number // SHAPE.nodes
                start_ns = (int(time.time()) // SHAPE.interval_s - 1) * SHAPE.interval_s * SECOND
                key, value, headers, *_ = message(self._population, node, interval, start_ns, "recovery")
                await producer.send_and_wait(RAW_PROFILES.name, value, key=key, headers=headers)
                self.sent = number = number + 1
                await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        finally:
            await producer.stop()


def lag(instance: Stack) -> float | None:
    """Return the messages that the worker has not taken in; None while it does not know or does not answer."""
    counters = status.read(instance.stages["worker"]).counters
    if not counters.get("perfstream_worker_messages_total"):
        return None
    return counters.get("perfstream_worker_lag_messages")


def usual(instance: Stack) -> float:
    """Return the greatest lag of five seconds of steady work."""
    seen = []
    until = time.monotonic() + 5
    while time.monotonic() < until:
        seen.append(lag(instance) or 0.0)
        time.sleep(0.2)
    return max(seen)


def until_back(instance: Stack, bound: float) -> tuple[float, float]:
    """Wait until the lag is at most ``bound``; returns when work began again and when it was back (monotonic)."""
    began = 0.0
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        instance.tend()
        left = lag(instance)
        if left is not None:
            began = began or time.monotonic()
            if left <= bound:
                return began, time.monotonic()
        time.sleep(0.1)
    raise SystemExit(f"the worker was not back within {_LIMIT_S:.0f} s")


def kill(instance: Stack) -> float:
    """Kill the worker; returns when."""
    stage = instance.stages["worker"]
    assert stage.process is not None
    stage.signal(signal.SIGKILL)
    stage.process.wait()
    return time.monotonic()


def figures() -> Iterator[tuple[str, float, str]]:
    """Every figure of this module."""
    with stack() as (instance, addresses):
        load = Load(addresses.kafka)
        load.start()
        try:
            until_back(instance, 2.0)
            bound = usual(instance)
            times = []
            for _ in range(KILLS):
                killed = kill(instance)
                times.append(until_back(instance, bound)[1] - killed)
                time.sleep(3)
            yield "recovery_s", max(times), "s"
            stage = instance.stages["worker"]
            before = load.sent
            killed = kill(instance)
            time.sleep(AWAY_S)
            stage.backoff_s = 0.1
            began, back = until_back(instance, bound)
            arrived = load.sent - before
            # All that arrived since the kill was taken in between the first message and the last.
            rate = arrived / max(0.2, back - began)
            yield "catchup_factor", rate / (arrived / (back - killed)), ""
        finally:
            load.stopped.set()
            load.join(10)
