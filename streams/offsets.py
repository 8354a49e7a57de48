"""Questions to Kafka about offsets, on connections of their own.

On the consumer's connection each would wait behind its long poll, 1.5 s at a time: a dozen seconds at each start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from runtime.log import Once

logger = logging.getLogger("perfstream.worker")
T = TypeVar("T")

RETRY_S = 0.5


class Offsets:
    """Where partitions begin and end, and what the group has committed. Partitions are (topic, number) tuples."""

    def __init__(self, client_options: dict[str, Any], group: str) -> None:
        self._options, self._group = client_options, group
        self._consumer: Any = None
        self._admin: Any = None
        self._once = Once(logger)

    async def begins(self, partitions: Iterable[Any]) -> dict[Any, int]:
        """Return the first offset that each partition still holds; tries until Kafka answers."""
        wanted = list(partitions)
        return await self._until_answered(lambda: self._range(wanted, "beginning_offsets"))

    async def ends(self, partitions: Iterable[Any]) -> dict[Any, int]:
        """Return the offset that each partition's next message will have.

        Raises:
            KafkaError: Kafka did not answer.
        """
        return await self._range(list(partitions), "end_offsets")

    async def committed(self) -> dict[Any, tuple[int, str]]:
        """Return the group's commits, {partition: (offset, metadata)}; tries until Kafka answers."""
        return await self._until_answered(self._committed)

    async def following(self, partition: Any, offset: int) -> int:  # noqa: ANN401 - a tuple
        """Return the offset of the first message at or after ``offset``; waits 30 s for one."""
        consumer = AIOKafkaConsumer(**self._options, auto_offset_reset="earliest")
        await consumer.start()
        try:
            at = TopicPartition(*partition)
            consumer.assign([at])
            consumer.seek(at, offset)
            record = await asyncio.wait_for(consumer.getone(at), 30)
        finally:
            await consumer.stop()
        return int(record.offset)

    async def close(self) -> None:
        """Close the connections."""
        consumer, admin, self._consumer, self._admin = self._consumer, self._admin, None, None
        with contextlib.suppress(KafkaError, OSError):
            if consumer is not None:
                await consumer.stop()
            if admin is not None:
                await admin.close()

    async def _range(self, partitions: list[Any], what: str) -> dict[Any, int]:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(**self._options)
            await consumer.start()
            self._consumer = consumer
        found = await getattr(self._consumer, what)([TopicPartition(*at) for at in partitions])
        return dict(found)

    async def _committed(self) -> dict[Any, tuple[int, str]]:
        if self._admin is None:
            admin = AIOKafkaAdminClient(**self._options)
            await admin.start()
            self._admin = admin
        found = await self._admin.list_consumer_group_offsets(self._group)
        return {at: (entry.offset, entry.metadata) for at, entry in found.items() if entry.offset >= 0}

    async def _until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except (KafkaError, OSError) as error:
                self._once.warning("offsets", f"Kafka does not tell offsets; trying again: {error!r}")
                await self.close()
                await asyncio.sleep(RETRY_S)
