"""Reading a group's committed offsets together with their metadata, which is where announced batches stand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

log = logging.getLogger(__name__)


class CommittedOffsets:
    """Reads committed offsets. aiokafka's consumer hides the metadata, its admin client does not."""

    def __init__(self, client_options: dict[str, Any], group: str) -> None:
        self._options = client_options
        self._group = group
        self._admin: Any = None

    async def read(self, partitions: Iterable[Any]) -> dict[Any, tuple[int, str]]:
        """Return {partition: (offset, metadata)} of those that have a commit; tries until Kafka answers."""
        from aiokafka.admin import AIOKafkaAdminClient
        from aiokafka.errors import KafkaError

        wanted = list(partitions)
        while wanted:
            try:
                if self._admin is None:
                    admin = AIOKafkaAdminClient(**self._options)
                    await admin.start()
                    self._admin = admin
                found = await self._admin.list_consumer_group_offsets(self._group, partitions=wanted)
            except (KafkaError, OSError) as error:
                log.warning("committed offsets cannot be read; trying again", extra={"error": str(error)})
                await self.close()
                await asyncio.sleep(0.5)
            else:
                return {tp: (at.offset, at.metadata) for tp, at in found.items() if at.offset >= 0}
        return {}

    async def close(self) -> None:
        """Close the connection."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
