"""Figures of the pipeline: rows for each CPU second, freshness, stored size, start-up."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deploy.stack import status
from deploy.stack.settings import Ports, StackSettings
from deploy.stack.supervisor import Stack
from runtime.workdir import Endpoints
from tests.bench.load import SECOND, Population, Shape, message, publish

TICKS = os.sysconf("SC_CLK_TCK")
ROWS_MESSAGES = 400
FRESHNESS_INTERVALS = 12
# The first interval brings 20,000 stacks that the store has never seen; the figure is that of a fleet that runs.
FRESHNESS_WARM_UP = 1


@contextmanager
def stack(without: tuple[str, ...] = ("agent", "ingest")) -> Iterator[tuple[Stack, Endpoints]]:
    """A stack of its own on free ports, without what would bring a load of its own."""
    with tempfile.TemporaryDirectory(prefix="perfstream-bench-") as directory:
        instance = Stack(Path(directory), StackSettings(ports=Ports.free()), without=without)
        try:
            yield instance, instance.start()
        finally:
            instance.stop()


def cpu_seconds(instance: Stack, names: tuple[str, ...] = ("worker", "sink", "store")) -> float:
    """User and system time of these stages so far."""
    total = 0
    for name in names:
        fields = Path(f"/proc/{instance.stages[name].pid}/stat").read_text().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def connect(addresses: Endpoints) -> Any:
    import clickhouse_connect

    return clickhouse_connect.get_client(dsn=addresses.clickhouse)


def lag(instance: Stack, stage: str) -> float:
    """Return how many messages a stage has yet to take in, and for the worker to publish."""
    counters = status.read(instance.stages[stage]).counters
    waiting = counters.get(f"perfstream_{stage}_lag_messages", 1.0)
    return waiting + counters.get("perfstream_worker_unpublished_rows", 0.0)


def stored_rows(client: Any) -> tuple[int, int]:
    """Return (rows, sum of values) of all samples."""
    rows, value = client.query("SELECT count(), sum(value) FROM samples").result_rows[0]
    return rows, value


def rows_per_cpu_second(instance: Stack, addresses: Endpoints) -> Iterator[tuple[str, float, str]]:
    """Publish a backlog, and divide the rows by the CPU time until samples and windows hold all of them."""
    shape = Shape()
    population = Population(shape, seed=1)
    start = (int(time.time()) - 3600) // 60 * 60 * SECOND
    made = [
        message(population, number % shape.nodes, number // shape.nodes,
                start + number // shape.nodes * shape.interval_s * SECOND, "rows")
        for number in range(ROWS_MESSAGES)
    ]  # fmt: skip
    rows, value = sum(m[3] for m in made), sum(m[4] for m in made)
    client = connect(addresses)
    had_rows, had_value = stored_rows(client)
    rows_wanted = (had_rows + rows, had_value + value)
    before = {name: cpu_seconds(instance, (name,)) for name in ("worker", "sink", "store")}
    began = time.monotonic()
    asyncio.run(publish(addresses.kafka, made))
    # Asking the store costs CPU that is not the pipeline's: the stages say when they are done, the store is asked once.
    quiet = 0
    while quiet < 3:
        time.sleep(0.5)
        quiet = 0 if any(lag(instance, stage) for stage in ("worker", "sink")) else quiet + 1
        if time.monotonic() - began > 240:
            raise SystemExit("the pipeline did not take it all in within 240 s")
    elapsed = time.monotonic() - began
    spent = {name: cpu_seconds(instance, (name,)) - before[name] for name in before}
    stored = stored_rows(client)
    windows = client.query("SELECT sum(self) FROM hotspots_final").result_rows[0][0]
    if stored != rows_wanted or windows != rows_wanted[1]:
        raise SystemExit(f"not all rows arrived: {stored} of {rows_wanted}, windows {windows}")
    yield "rows_per_cpu_second", rows / sum(spent.values()), "rows/s"
    for name, seconds in spent.items():
        yield f"cpu_us_per_row_{name}", seconds / rows * 1e6, "us"
    yield "rows_per_second", rows / elapsed, "rows/s"
    client.command("OPTIMIZE TABLE samples FINAL")
    size = client.query(
        "SELECT sum(data_compressed_bytes) / sum(rows), sum(bytes_on_disk) / sum(rows) FROM system.parts "
        "WHERE active AND table = 'samples' AND database = currentDatabase()"
    ).result_rows[0]
    yield "stored_bytes_per_row", size[1], "bytes"


def freshness(addresses: Endpoints) -> Iterator[tuple[str, float, str]]:
    """Publish 20 nodes' intervals as they end; watch when each message's rows can be queried."""
    shape = Shape(interval_s=5)
    population = Population(shape, seed=2)
    client = connect(addresses)
    ages: list[float] = []

    async def run() -> None:
        for round_number in range(FRESHNESS_WARM_UP + FRESHNESS_INTERVALS):
            end = (int(time.time()) // shape.interval_s + 1) * shape.interval_s
            made = [
                message(population, node, round_number, (end - shape.interval_s) * SECOND, "fresh")
                for node in range(shape.nodes)
            ]
            await asyncio.sleep(max(0.0, end - time.time()))
            await publish(addresses.kafka, made)
            seen = 0
            while seen < shape.nodes and time.time() < end + 30:
                found = client.query(
                    "SELECT uniqExact(node) FROM samples WHERE time = toDateTime64({t:Int64}, 3)",
                    parameters={"t": end - shape.interval_s},
                ).result_rows[0][0]
                if round_number >= FRESHNESS_WARM_UP:
                    ages.extend([time.time() - end] * (found - seen))
                seen = found
                await asyncio.sleep(0.02)

    asyncio.run(run())
    yield "freshness_p50_s", float(np.quantile(ages, 0.5)), "s"
    yield "freshness_p99_s", float(np.quantile(ages, 0.99)), "s"


def figures() -> Iterator[tuple[str, float, str]]:
    """Every figure of this module."""
    # A stack for each: merges of what one has left would be counted in the other.
    with stack() as (instance, addresses):
        yield "startup_s", instance.started_in_s, "s"
        yield from rows_per_cpu_second(instance, addresses)
    with stack() as (_, addresses):
        yield from freshness(addresses)
