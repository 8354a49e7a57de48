"""Creates the declared topics, and fails loudly when an existing one disagrees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runtime.kafka import refusal
from streams.schema.errors import BrokerUnavailableError, TopicMismatchError
from streams.schema.topics import ALL, Topic


async def apply(
    client_options: dict[str, Any], topics: Iterable[Topic] = ALL, partitions: int | None = None, replication: int = 1
) -> list[str]:
    """Create what is missing; returns the names that were created.

    Args:
        client_options: keyword arguments for aiokafka (see ``KafkaSettings.client_options``).
        topics: the declarations to apply.
        partitions: overrides the declared count of each topic that has more than one partition.
        replication: replicas of each new topic.

    Raises:
        BrokerUnavailableError: Kafka did not answer.
        TopicMismatchError: a topic exists with fewer partitions or another configuration than declared.
    """
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        reason = await refusal(client_options) or error
        raise BrokerUnavailableError(f"Kafka at {client_options.get('bootstrap_servers')}: {reason}") from error
    try:
        wanted = {topic.name: topic for topic in topics}
        present = set(await admin.list_topics())
        counts = {
            name: partitions if partitions and topic.partitions > 1 else topic.partitions
            for name, topic in wanted.items()
        }
        missing = [topic for name, topic in wanted.items() if name not in present]
        if missing:
            created = await admin.create_topics(
                [
                    NewTopic(
                        name=topic.name,
                        num_partitions=counts[topic.name],
                        replication_factor=replication,
                        topic_configs=topic.config(),
                    )
                    for topic in missing
                ]
            )
            _refuse_failures(created.topic_errors)
        existing = [name for name in wanted if name in present]
        if existing:
            for described in await admin.describe_topics(existing):
                found = len(described["partitions"])
                if found < counts[described["topic"]]:
                    raise TopicMismatchError(
                        f"topic {described['topic']} has {found} partitions where {counts[described['topic']]} are "
                        "declared; add partitions or delete the topic"
                    )
            answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, n) for n in existing])
            for answer in answers:
                for code, _message, _kind, name, entries in answer.resources:
                    if code:
                        raise TopicMismatchError(f"topic {name}: Kafka does not tell its settings: {_named(code)}")
                    found_config = {entry[0]: entry[1] for entry in entries}
                    for key, value in wanted[name].config().items():
                        if found_config.get(key) != value:
                            raise TopicMismatchError(
                                f"topic {name} has {key}={found_config.get(key)} where {value} is declared; "
                                "change the topic or delete it"
                            )
        return [topic.name for topic in missing]
    finally:
        await admin.close()


def _refuse_failures(answers: Iterable[tuple[Any, ...]]) -> None:
    """Raise for the first (topic, code, ...) that failed; that another command made it meanwhile is no failure."""
    from aiokafka.errors import TopicAlreadyExistsError

    for name, code, *_message in answers:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise TopicMismatchError(f"topic {name} cannot be created: {_named(code)}")


def _named(code: int) -> str:
    from aiokafka.errors import for_code

    kind = for_code(code)
    return f"{getattr(kind, 'message', kind.__name__)} ({getattr(kind, 'description', '').strip()})"
