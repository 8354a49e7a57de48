"""Every Kafka topic, declared once: name, key, partitions, retention, value schema.

``perfstream topics apply`` creates them and fails loudly when an existing topic disagrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic's declaration.

    ``key`` names what the record key holds, ``schema`` the value's schema name (see ``streams.schema.messages``).
    Raw topics carry the broker's append time as record timestamp: clock checks need a clock that no node owns.
    """

    name: str
    key: str
    schema: str
    partitions: int
    retention_ms: int
    log_append_time: bool = True
    max_message_bytes: int = 16 * 1024 * 1024

    def config(self) -> dict[str, str]:
        """Return the broker-side settings of the topic, under Kafka's own names."""
        return {
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "cleanup.policy": "delete",
        }


DEFAULT_PARTITIONS = 4

RAW_PROFILES = Topic("perfstream.raw.profiles", "cluster/node", "profile", DEFAULT_PARTITIONS, 24 * HOUR_MS)
RAW_LATENCIES = Topic("perfstream.raw.latencies", "cluster/node", "latency", DEFAULT_PARTITIONS, 24 * HOUR_MS)
RAW_EVENTS = Topic("perfstream.raw.events", "cluster/node", "event", DEFAULT_PARTITIONS, 24 * HOUR_MS)
HOTSPOTS = Topic("perfstream.windows.hotspots", "shard", "hotspot", DEFAULT_PARTITIONS, 24 * HOUR_MS)
LATENCY_WINDOWS = Topic("perfstream.windows.latencies", "shard", "latency_window", DEFAULT_PARTITIONS, 24 * HOUR_MS)
DEAD_LETTERS = Topic(
    "perfstream.deadletter",
    "topic:partition:offset",
    "dead_letter",
    1,
    7 * 24 * HOUR_MS,
    log_append_time=False,
    max_message_bytes=17 * 1024 * 1024,  # whatever a raw topic takes, and where it came from
)

RAW = (RAW_PROFILES, RAW_LATENCIES, RAW_EVENTS)
RESULTS = (HOTSPOTS, LATENCY_WINDOWS)
ALL = (*RAW, *RESULTS, DEAD_LETTERS)
BY_NAME = MappingProxyType({topic.name: topic for topic in ALL})

RAW_BY_SCHEMA = MappingProxyType({topic.schema: topic for topic in RAW})


def schema_of(name: str) -> str:
    """Return the value schema of a topic, whatever prefix its name has; "" when it is none of ours."""
    return next((topic.schema for topic in ALL if name.endswith(topic.name)), "")
