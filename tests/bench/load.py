"""A realistic load, made in columns from a seed: nodes that publish CPU samples and latencies.

Stacks are drawn from a fixed population with Zipf-like skew (mean depth 25 from 3,000 functions), so that nodes repeat
each other's stacks, as replicas of one service do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streams.schema import codec, stack_columns, stacks
from streams.schema.messages import PROFILE, TEXT, WORKLOAD, Interval
from streams.schema.topics import RAW_PROFILES

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Shape:
    """How large the load is. ``rows`` are per node and interval."""

    nodes: int = 20
    rows: int = 5_000
    services: int = 40
    stacks: int = 20_000
    functions: int = 3_000
    depth: int = 25
    interval_s: int = 10


class Population:
    """The stacks that all nodes draw from."""

    def __init__(self, shape: Shape, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.shape = shape
        names = [f"package{i % 97}.module{i % 13}::function_{i}" for i in range(shape.functions)]
        texts = []
        # Stacks share their upper parts, as call trees do: each extends a cut of an earlier one.
        chains: list[list[int]] = [[0]]
        for _ in range(shape.stacks):
            base = chains[int(rng.integers(len(chains)))]
            depth = max(2, int(rng.normal(shape.depth, 6)))
            cut = base[: max(1, int(depth * 0.7))]
            chain = cut + rng.integers(0, shape.functions, max(1, depth - len(cut))).tolist()
            chains.append(chain)
            texts.append(stacks.join([stacks.frame_text(names[f], f"/usr/lib/lib{f % 31}.so", f % 400) for f in chain]))
        self.values = stack_columns.entries(texts)
        weights = 1.0 / np.arange(1, shape.stacks + 1) ** 0.9
        self.weights = weights / weights.sum()

    def batch(self, node: int, interval: int, start_ns: int) -> pa.RecordBatch:
        """Return one node's CPU samples of one interval."""
        shape = self.shape
        rng = np.random.default_rng((node, interval))
        picked = rng.choice(shape.stacks, shape.rows, p=self.weights)
        used, indices = np.unique(picked, return_inverse=True)
        # A node runs a few services; which stack belongs to which service is fixed.
        service = (picked * 7 + node % 4) % shape.services
        text = pa.array([f"service-{i:02d}" for i in range(shape.services)])
        columns = {
            "time_ns": pa.array(np.full(shape.rows, start_ns)),
            "service": pa.DictionaryArray.from_arrays(pa.array(service, pa.int32()), text),
            "stack": pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), self.values.take(pa.array(used))),
            "value": pa.array(rng.geometric(0.4, shape.rows) * 20_408_163),
            "period": pa.array(np.full(shape.rows, 20_408_163)),
            "type": constant("cpu", shape.rows),
            "unit": constant("nanoseconds", shape.rows),
        }
        for name in WORKLOAD:
            columns.setdefault(name, constant({"version": "v1", "namespace": "shop"}.get(name, ""), shape.rows))
        return pa.RecordBatch.from_arrays([columns[name].cast(PROFILE.field(name).type) for name in PROFILE.names],
                                          schema=PROFILE)  # fmt: skip


def constant(text: str, rows: int) -> pa.DictionaryArray:
    """Return a dictionary column of one text."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text])).cast(TEXT)


def message(population: Population, node: int, interval: int, start_ns: int, producer: str):
    """Return (key, value, headers, rows, sum of values) of one node's message."""
    batch = population.batch(node, interval, start_ns)
    end_ns = start_ns + population.shape.interval_s * SECOND
    header = Interval("cpu", "bench", f"node-{node:03d}", f"{producer}-{node}", interval, start_ns, end_ns,
                      events=batch.num_rows)  # fmt: skip
    value, headers = codec.encode("profile", batch, header)
    total = int(np.sum(batch.column("value").to_numpy()))
    return f"bench/node-{node:03d}".encode(), value, headers, batch.num_rows, total


async def publish(kafka: str, messages, topic: str = RAW_PROFILES.name) -> None:
    """Publish messages as fast as the broker takes them."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", max_request_size=16 * 1024 * 1024, linger_ms=5)
    await producer.start()
    try:
        pending = []
        for key, value, headers, *_ in messages:
            pending.append(await producer.send(topic, value, key=key, headers=headers))
        await asyncio.gather(*pending)
    finally:
        await producer.stop()
