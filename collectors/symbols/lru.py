"""A bounded dictionary that forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """At most ``bound`` entries; ``dropped`` is called with each value that leaves. Not thread-safe."""

    def __init__(self, bound: int, dropped: Callable[[V], None] | None = None) -> None:
        self._bound = bound
        self._dropped = dropped
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value and mark it as used, or None."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Store a value; the one used longest ago leaves when the bound is passed."""
        old = self._entries.pop(key, None)
        if old is not None and old is not value and self._dropped:
            self._dropped(old)
        self._entries[key] = value
        while len(self._entries) > self._bound:
            _, left = self._entries.popitem(last=False)
            if self._dropped:
                self._dropped(left)

    def values(self) -> list[V]:
        """Return the values, the one used longest ago first."""
        return list(self._entries.values())

    def clear(self) -> None:
        """Forget everything."""
        while self._entries:
            _, left = self._entries.popitem()
            if self._dropped:
                self._dropped(left)
