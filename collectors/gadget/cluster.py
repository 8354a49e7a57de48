"""Every node's rows at once: what the agents publish, followed on the raw topics from now on, or from a little before.

Nothing is committed and no group is joined, so it neither disturbs the pipeline nor leaves anything behind. An agent
publishes once an interval (10 s by default): rows come that late. Messages of other collectors on the same topic are
told apart by their headers, without decoding them. Memory: what one fetch holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pyarrow as pa

from runtime import kafka_records
from runtime.kafka import refusal
from streams.schema import codec
from streams.schema.errors import BrokerUnavailableError, SchemaError, TopicMismatchError
from streams.schema.messages import Interval
from streams.schema.topics import RAW_BY_SCHEMA

if TYPE_CHECKING:
    from collectors.catalogue import Entry

_POLL_MS = 200
_MOST_RECORDS = 200
_ASSIGN_S = 20.0


@dataclass(slots=True)
class Followed:
    """What has been seen so far."""

    events: int = 0
    lost: int = 0
    unreadable: int = 0
    nodes: set[tuple[str, str]] = field(default_factory=set)


def with_node(rows: pa.RecordBatch, cluster: str, node: str) -> pa.RecordBatch:
    """Return the rows with the columns ``cluster`` and ``node`` before the others."""
    count = rows.num_rows
    indices = pa.array(np.zeros(count, np.int32))
    names = [pa.DictionaryArray.from_arrays(indices, pa.array([text], pa.string())) for text in (cluster, node)]
    return pa.RecordBatch.from_arrays([*names, *rows.columns], names=["cluster", "node", *rows.schema.names])


def follow(
    options: Mapping[str, Any],
    prefix: str,
    schema: str,
    collector: str,
    stop: threading.Event,
    timeout_s: float,
    show: Callable[[Interval, pa.RecordBatch], None],
    ready: Callable[[], None],
    *,
    back_s: float = 0.0,
    tick: Callable[[bool], None] = lambda _caught_up: None,
) -> Followed:
    """Hand every message of one collector to ``show`` until ``stop``, or for ``timeout_s`` seconds (0: for ever).

    Args:
        options: keyword arguments of an aiokafka client (``KafkaSettings.client_options``).
        prefix: stands before the topic's name.
        schema: ``event`` or ``latency``.
        collector: the collector's name, as the messages' headers say it.
        stop: ends it when set.
        timeout_s: how long.
        show: gets each message's interval and rows, ``cluster`` and ``node`` among their columns.
        ready: called once, when nothing that is published from then on will be missed.
        back_s: begin with what was published so many seconds ago, by the broker's clock against ours.
        tick: called a few times a second; told whether everything has been seen that was there at the begin.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
        TopicMismatchError: the topic does not exist.
    """

    async def main() -> Followed:
        seen = Followed()
        deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        async with _consumer(options, prefix + RAW_BY_SCHEMA[schema].name, back_s) as (consumer, behind):
            ready()
            while not stop.is_set() and time.monotonic() < deadline:
                got = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
                for record in (record for records in got.values() for record in records):
                    _take(record, schema, collector, seen, show)
                for each in [each for each, end in behind.items() if await consumer.position(each) >= end]:
                    del behind[each]
                tick(not behind)
        return seen

    return asyncio.run(main())


def _take(
    record: Any,  # noqa: ANN401 - aiokafka is untyped
    schema: str,
    collector: str,
    seen: Followed,
    show: Callable[[Interval, pa.RecordBatch], None],
) -> None:
    try:
        _, interval = codec.decode_headers(record.headers)
        if interval.collector != collector:
            return
        _, interval, rows = codec.decode(record.headers, record.value, schema)
    except SchemaError:
        seen.unreadable += 1  # the sink says why, and buries it
        return
    seen.events += interval.events
    seen.lost += interval.lost
    seen.nodes.add((interval.cluster, interval.node))
    show(interval, with_node(rows, interval.cluster, interval.node))


@contextlib.asynccontextmanager
async def _consumer(options: Mapping[str, Any], topic: str, back_s: float) -> AsyncIterator[tuple[Any, dict[Any, int]]]:
    """Give a consumer that stands where it is to begin, and the ends as they are then."""
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    kafka_records.install()
    # What cannot be reached is said once, by us.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    consumer = AIOKafkaConsumer(**{**options, "enable_auto_commit": False, "max_partition_fetch_bytes": 17 << 20})
    try:
        try:
            await consumer.start()
            if topic not in await consumer.topics():
                raise TopicMismatchError(f"there is no topic {topic}; 'perfstream topics apply' creates it")
            consumer.subscribe([topic])
            async with asyncio.timeout(_ASSIGN_S):
                while not (partitions := consumer.assignment()):  # noqa: ASYNC110 - aiokafka offers no event for it
                    await asyncio.sleep(0.02)
            # The ends as they are now: what is published from here on is seen.
            ends = await consumer.end_offsets(partitions)
            since = dict.fromkeys(partitions, round((time.time() - back_s) * 1000))
            earlier = await consumer.offsets_for_times(since) if back_s else {}
            for partition, end in ends.items():
                found = earlier.get(partition)
                consumer.seek(partition, end if found is None else found.offset)
        except (KafkaError, OSError, TimeoutError) as error:
            reason = await refusal(options)
            where = options.get("bootstrap_servers", "")
            raise BrokerUnavailableError(f"Kafka at {where}: {reason or repr(error)}") from error
        yield consumer, ends
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(consumer.stop(), 2.0)


def summary(seen: Followed, counts: str, entry: Entry, *, why: bool = True) -> None:
    """Say on standard error what was seen; where that is nothing, and ``why``, what may be the reason."""
    unreadable = f", {seen.unreadable:,} records not readable" if seen.unreadable else ""
    click.echo(f"{counts}, {seen.lost:,} lost, of {len(seen.nodes)} nodes{unreadable}", err=True)
    if why and not seen.nodes:
        nothing(entry)


def nothing(entry: Entry) -> None:
    """Say on standard error that no message has come, and what may be the reason."""
    wanted = f'and collects {entry.name} only where agent.collectors names it, as ["default", "{entry.name}"]'
    why = "" if entry.always_on else f" {wanted}"
    click.echo(f"no message came; an agent publishes once an interval (10 s){why}", err=True)
