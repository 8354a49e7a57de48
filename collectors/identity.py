"""An idempotent producer's identity that outlives the process, so that Kafka itself drops what is sent twice.

Kafka tells a repeat by (producer id, sequence number in the partition). Both normally die with the process, and a
message whose acknowledgement a killed agent did not see would be stored twice. Here they do not: the spool numbers the
messages of each topic, that number is the sequence number, and the producer's id and the partition counts that keys
were mapped with stand in ``producer.json`` beside the spool before the first message is sent under them. One message is
in flight at a time; it is the only one whose outcome can be unknown, and it is sent again as it was before anything
else.

A number may be skipped (dropped or refused messages) or start anew (an empty spool): then the identity is replaced,
which is safe whenever no outcome is unknown. A broker keeps an identity for ``producer.id.expiration.ms`` (one day)
after its last message: beyond that a repeat is not noticed.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collectors.spool_files import Message

_LOG = logging.getLogger(__name__)
_SEQUENCES = 1 << 31


@dataclass(slots=True)
class Identity:
    """Who Kafka takes the producer for. ``next`` is each topic's next number; None in it: not known, any."""

    producer: int = -1
    epoch: int = -1
    partitions: dict[str, int] = field(default_factory=dict)
    next: dict[str, int] = field(default_factory=dict)
    restored: bool = False

    def continues(self, message: Message, *, doubtful: bool) -> bool:
        """Return whether a message may be sent under this identity."""
        if self.restored:
            return doubtful and message.topic in self.partitions
        return self.next.get(message.topic, message.number) == message.number

    def partition(self, message: Message) -> int:
        """Return where Kafka's own partitioner puts the message's key among the partitions that were noted."""
        from aiokafka.partitioner import DefaultPartitioner

        numbers = list(range(self.partitions[message.topic]))
        return int(DefaultPartitioner()(message.key, numbers, numbers))


class IdentityFile:
    """``producer.json`` in the spool's directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "producer.json"

    def read(self) -> Identity | None:
        """Return the identity of the process before; None when there is none."""
        try:
            found = json.loads(self._path.read_text())
            partitions = {str(topic): int(count) for topic, count in found["partitions"].items()}
            return Identity(int(found["producer"]), int(found["epoch"]), partitions, restored=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, identity: Identity) -> None:
        """Replace the file in one step. A disk that refuses is only reported: the messages are worth more."""
        partial = self._path.with_suffix(".partial")
        text = {"producer": identity.producer, "epoch": identity.epoch, "partitions": identity.partitions}
        try:
            partial.write_text(json.dumps(text))
            partial.replace(self._path)
        except OSError as error:
            _LOG.warning("cannot note the producer's identity: %s; a kill now may repeat one message", error)


def assume(producer: Any, identity: Identity) -> None:  # noqa: ANN401 - aiokafka is untyped
    """Make a producer that has not started carry on an identity. aiokafka has no public way to."""
    producer._txn_manager.set_pid_and_epoch(identity.producer, identity.epoch)  # noqa: SLF001


async def assigned(producer: Any) -> Identity:  # noqa: ANN401
    """Return the fresh identity that the broker gave to a started producer."""
    manager = producer._txn_manager  # noqa: SLF001
    await manager.wait_for_pid()
    return Identity(int(manager.producer_id), int(manager.producer_epoch))


def number_next(producer: Any, topic: str, partition: int, number: int) -> None:  # noqa: ANN401
    """Set the sequence number of the next message to a partition."""
    from aiokafka import TopicPartition

    producer._txn_manager._sequence_numbers[TopicPartition(topic, partition)] = number % _SEQUENCES  # noqa: SLF001
