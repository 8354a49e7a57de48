"""How far behind a reader is, in seconds: how long ago the oldest message that it has not done with was there already.

Messages alone do not tell: a busy reader is never at the end, and one that is ten behind may stand still. Pure; time is
passed in. Memory: at most ``_KEPT`` marks for each partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable

LATE_S = 10.0
"""Above this a reader says in ``/healthz`` that it is behind."""
_KEPT = 64
_MARK_S = 0.5


class Lag:
    """Marks of (time, end of the partition); the oldest one that has not been reached is how late the reader is."""

    def __init__(self) -> None:
        self._marks: dict[Hashable, deque[tuple[float, int]]] = {}

    def observe(self, partition: Hashable, position: int, end: int, now: float) -> None:
        """Take in that a reader stands at ``position`` (its next offset) where the partition ends at ``end``."""
        marks = self._marks.setdefault(partition, deque())
        while marks and marks[0][1] <= position:
            marks.popleft()
        if end <= position:
            return
        if not marks or (end > marks[-1][1] and now - marks[-1][0] >= _MARK_S):
            marks.append((now, end))
        if len(marks) > _KEPT:  # thinned out: the first stays, as it says how late it is
            first = marks[0]
            kept = list(marks)[2::2]
            marks.clear()
            marks.extend([first, *kept])

    def keep(self, partitions: Iterable[Hashable]) -> None:
        """Forget all partitions but these."""
        wanted = set(partitions)
        for gone in self._marks.keys() - wanted:
            del self._marks[gone]

    def seconds(self, now: float) -> float:
        """Return how late the reader is; 0 when it is at the end everywhere."""
        return max((now - marks[0][0] for marks in self._marks.values() if marks), default=0.0)

    def trouble(self, now: float) -> str:
        """Return why a health check should be ill, "" when it should not."""
        late = self.seconds(now)
        return f"{late:.0f} s behind what Kafka holds" if late > LATE_S else ""
