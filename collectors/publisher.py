"""The one way from the node to Kafka, for all collectors.

``publish`` encodes, writes to the spool and returns; a thread of its own sends from the spool with an idempotent
producer (acks=all, retried without end), one after the other, and removes a message when Kafka has acknowledged it. A
slow or absent Kafka therefore costs disk up to the spool's bound and nothing else.

Nothing is stored twice, whatever is killed when: a message whose outcome is not known is sent again under the identity
that it had, and the broker drops the repeat (see ``collectors.identity``, also for what that cannot cover).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from collectors.identity import Identity, IdentityFile, assigned, assume, number_next
from collectors.sending import Sender
from collectors.spool import Entry, Spool
from collectors.spool_files import MAX_RECORD, Message
from runtime.settings import KafkaSettings
from streams.schema import codec
from streams.schema.messages import Interval
from streams.schema.stack_columns import StackColumns
from streams.schema.topics import RAW_BY_SCHEMA

MAX_ROWS = 200_000
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What one ``publish`` came to: messages, rows, encoded bytes, and the losses that they report."""

    messages: int
    rows: int
    bytes: int
    lost: int


class Publisher(Sender):
    """Publishes batches of all collectors of one node.

    Args:
        kafka: how to reach Kafka.
        spool: where messages wait.
        cluster: name of the cluster, in the headers and the key.
        node: name of this node, likewise.
        topic_prefix: put before the declared topic names.
        observe_latency: called with the seconds from sending each message to its acknowledgement.
    """

    _retry_s = (0.5, 5.0)

    def __init__(
        self,
        kafka: KafkaSettings,
        spool: Spool,
        cluster: str,
        node: str,
        topic_prefix: str = "",
        observe_latency: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        super().__init__(kafka, "publisher", _LOG)
        self.producer = uuid.uuid4().hex
        self._spool = spool
        self._cluster = cluster
        self._node = node
        self._prefix = topic_prefix
        self._observe = observe_latency
        self._sequences: dict[str, int] = {}
        self._identity_file = IdentityFile(spool.directory)
        self._identity = self._identity_file.read() if spool.loads().messages else None
        self.acknowledged = 0

    def publish(
        self, collector: str, schema: str, batch: pa.RecordBatch, start_ns: int, end_ns: int, events: int, lost: int = 0
    ) -> Published:
        """Publish one interval of one collector; zero rows are a message, too. Does not wait for Kafka.

        Args:
            collector: its name; sequence numbers are per collector.
            schema: name of the batch's schema in the contract.
            batch: the rows.
            start_ns: begin of the interval, event time.
            end_ns: its end, exclusive.
            events: how many raw events the rows stand for.
            lost: how many the collector knows that it did not count.

        A batch above ``MAX_ROWS`` or ``MAX_MESSAGE_BYTES`` becomes several messages: ``events`` is divided among them
        as their rows are (the sum is exact), ``lost`` stands in the first.
        """
        owed = self._spool.owed(collector)
        messages = rows = size = 0
        remaining = events
        pending = lost + owed
        topic = self._prefix + RAW_BY_SCHEMA[schema].name
        parts = list(_parts(batch))
        for index, part in enumerate(parts):
            share = remaining if index == len(parts) - 1 else events * part.num_rows // max(1, batch.num_rows)
            remaining -= share
            for piece, (value, headers), piece_events in self._encode(collector, schema, part, start_ns, end_ns, share,
                                                                     pending):  # fmt: skip
                message = Message(
                    topic, f"{self._cluster}/{self._node}".encode(), tuple(headers), value, collector,
                    piece_events + pending,
                )  # fmt: skip
                self._spool.append(message, repays=min(owed, pending))
                messages, rows, size = messages + 1, rows + piece.num_rows, size + len(value)
                pending = owed = 0
        self._signal()
        return Published(messages, rows, size, lost)

    def close(self, timeout_s: float = 3.0) -> bool:
        """Send what waits, for at most ``timeout_s`` seconds; the rest stays in the spool. True when all was sent."""
        self._end(timeout_s)
        waiting = self._spool.loads().messages
        if waiting:
            _LOG.warning("%d messages stay in the spool; the next start sends them", waiting)
        return not waiting

    def _encode(
        self, collector: str, schema: str, batch: pa.RecordBatch, start_ns: int, end_ns: int, events: int, lost: int
    ) -> Iterator[tuple[pa.RecordBatch, tuple[bytes, list[tuple[str, bytes]]], int]]:
        sequence = self._sequences.get(collector, 0)
        interval = Interval(collector, self._cluster, self._node, self.producer, sequence, start_ns, end_ns,
                            events=events, lost=lost)  # fmt: skip
        encoded = codec.encode(schema, batch, interval)
        if len(encoded[0]) <= MAX_MESSAGE_BYTES or batch.num_rows <= 1:
            self._sequences[collector] = sequence + 1
            yield batch, encoded, events
            return
        half = batch.num_rows // 2
        first = events * half // batch.num_rows
        yield from self._encode(collector, schema, compact(batch.slice(0, half)), start_ns, end_ns, first, lost)
        yield from self._encode(collector, schema, compact(batch.slice(half)), start_ns, end_ns, events - first, 0)

    def _more(self) -> bool:
        return self._spool.loads().messages > 0

    def _options(self) -> dict[str, Any]:
        return {
            "max_request_size": MAX_RECORD,
            "retry_backoff_ms": 250,
            "request_timeout_ms": 60_000,
            "metadata_max_age_ms": 300_000,
        }

    async def _begin(self, producer: Any) -> None:  # noqa: ANN401 - aiokafka is untyped
        if self._identity is not None:
            assume(producer, self._identity)
        await producer.start()
        if self._identity is None:
            self._identity = await assigned(producer)
            self._identity_file.write(self._identity)

    async def _drain(self, producer: Any) -> None:  # noqa: ANN401
        """Send what waits; returns when the producer must be replaced, or the spool is empty and the agent stops."""
        assert self._wake is not None
        while self._identity is not None:
            self._wake.clear()
            taken = self._spool.take(1, MAX_RECORD)
            if not taken:
                if self._stopping:
                    return
                await self._rest(producer)
                continue
            entry, message = taken[0]
            if await self._placed(producer, self._identity, entry, message):
                await self._send(producer, self._identity, entry, message)
            else:
                self._spool.release(entry, doubtful=False)
                self._identity = None

    async def _rest(self, producer: Any) -> None:  # noqa: ANN401
        """Wait for messages, and see meanwhile whether Kafka is still there."""
        self.trouble = ""
        while not await self._look(producer):
            pass

    async def _placed(self, producer: Any, identity: Identity, entry: Entry, message: Message) -> bool:  # noqa: ANN401
        """Note how many partitions the topic has; returns whether the message may be sent under the identity."""
        if not identity.continues(message, doubtful=entry.doubtful):
            return False
        try:
            count = len(await producer.partitions_for(message.topic))
        except BaseException:
            self._spool.release(entry, doubtful=entry.doubtful)
            raise
        noted = identity.partitions.get(message.topic)
        if noted is None:
            noted = identity.partitions[message.topic] = count
            self._identity_file.write(identity)
        # A repeat goes where the original went; anything else goes by the new count under a new identity.
        return noted == count or (entry.doubtful and noted < count)

    async def _send(self, producer: Any, identity: Identity, entry: Entry, message: Message) -> None:  # noqa: ANN401
        from aiokafka import errors

        begun = time.monotonic()
        delivery = asyncio.ensure_future(self._deliver(producer, identity, message))
        try:
            await self._acknowledged(delivery)
        except (errors.MessageSizeTooLargeError, errors.InvalidMessageError, errors.RecordListTooLargeError) as error:
            self._once.warning("refused", f"Kafka refuses a message of {entry.collector}: {error}; counted lost")
            self._spool.refuse(entry)
            self._identity = None  # its number is left out
        except (errors.OutOfOrderSequenceNumber, errors.UnknownProducerId, errors.ProducerFenced) as error:
            # The broker has neither this message nor the one before it under this identity.
            self._once.warning("identity", f"Kafka no longer knows the producer ({error}); it takes a new identity")
            self._spool.release(entry, doubtful=False)
            self._identity = None
        except BaseException:
            delivery.cancel()
            self._spool.release(entry)
            raise
        else:
            self._spool.ack(entry)
            identity.next[message.topic] = message.number + 1
            self.acknowledged += 1
            self._observe(time.monotonic() - begun)
        self.trouble = ""

    @staticmethod
    async def _deliver(producer: Any, identity: Identity, message: Message) -> None:  # noqa: ANN401
        partition = identity.partition(message)
        number_next(producer, message.topic, partition, message.number)
        sent = await producer.send(
            message.topic, message.value, key=message.key, partition=partition, headers=list(message.headers)
        )
        await sent

    def _tell(self) -> None:
        loads = self._spool.loads()
        self._once.warning("kafka", f"{self.trouble}; messages wait in the spool", waiting=loads.messages)


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows <= MAX_ROWS:
        yield batch
        return
    for start in range(0, batch.num_rows, MAX_ROWS):
        yield compact(batch.slice(start, MAX_ROWS))


def compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the same rows with dictionaries that hold only what the rows use (a slice keeps them whole)."""
    columns = []
    for given in batch.columns:
        column = given
        if isinstance(given, pa.DictionaryArray):
            used, indices = np.unique(column.indices.to_numpy(zero_copy_only=False), return_inverse=True)
            kept = column.dictionary.take(pa.array(used))
            if pa.types.is_struct(kept.type):
                kept = StackColumns.from_entries(kept).entries(kept.field("id").to_numpy())
            column = pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32), pa.int32()), kept)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
