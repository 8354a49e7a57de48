"""The latest interval of every node, as its messages come. Pure arithmetic, time passed in.

A node that has been silent for ``MISSED`` of its intervals is gone. The first interval of an agent may be a short one,
so that a node which has spoken only once is kept for ``ONCE_S`` seconds. Memory: one interval of each node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from streams.schema.messages import Interval

MISSED = 3
ONCE_S = 30.0
_LONGEST_S = 3600.0
"""Longer intervals are not waited for: a clock may say anything."""
_LATE_S = 1.0
"""What a message may come later than its interval ends, beside."""


@dataclass(slots=True)
class _Node:
    interval: Interval
    heard_s: float
    longest_s: float = 0.0
    intervals: int = 0
    parts: dict[int, pa.RecordBatch] = field(default_factory=dict)
    lost: int = 0


class Latest:
    """Holds rows of whatever schema; those of one interval may come in several messages."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], _Node] = {}

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return len(self._nodes)

    def take(self, interval: Interval, rows: pa.RecordBatch, now_s: float) -> None:
        """Take in one message. Those of one node come in their order: they are of one partition."""
        known = self._nodes.setdefault((interval.cluster, interval.node), _Node(interval, now_s))
        if not known.parts or _which(known.interval) != _which(interval):
            known.interval, known.parts, known.lost = interval, {}, 0
            known.intervals += 1
        if interval.sequence not in known.parts:
            known.parts[interval.sequence] = rows
            known.lost += interval.lost
        known.longest_s = max(known.longest_s, min((interval.end_ns - interval.start_ns) / 1e9, _LONGEST_S))
        known.heard_s = now_s

    def forget(self, now_s: float) -> bool:
        """Drop the nodes that are gone; return whether there was one."""
        gone = [name for name, each in self._nodes.items() if now_s - each.heard_s > _patience_s(each)]
        for name in gone:
            del self._nodes[name]
        return bool(gone)

    def rows(self) -> list[pa.RecordBatch]:
        """Return the rows of each node's latest interval, by cluster and node."""
        return [part for _, each in sorted(self._nodes.items()) for part in each.parts.values()]

    def lost(self) -> int:
        """Return how many events the nodes lost in these intervals."""
        return sum(each.lost for each in self._nodes.values())


def _which(interval: Interval) -> tuple[str, int, int]:
    return interval.producer, interval.start_ns, interval.end_ns


def _patience_s(node: _Node) -> float:
    missed = MISSED * node.longest_s + _LATE_S
    return missed if node.intervals > 1 else max(missed, ONCE_S)
