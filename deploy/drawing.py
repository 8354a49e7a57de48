"""Draws stacks that were just counted, with the flame graph's page; for gadgets, which know no later stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dashboards.flamegraph import page
from dashboards.reading import Flamegraph


def draw(stacks: Mapping[tuple[str, ...], int], title: str) -> str:
    """Return an HTML page of stacks (function names, root first: nanoseconds)."""
    return page.render(graph(stacks), title)


def graph(stacks: Mapping[tuple[str, ...], int]) -> Flamegraph:
    """Return the nodes of stacks in depth-first pre-order under one root, the greatest of siblings first."""
    found = Flamegraph("nanoseconds", [], [], [], [])
    for level, value, own, label in _nodes("all", dict(stacks), 0):
        found.level.append(level)
        found.value.append(value)
        found.self.append(own)
        found.label.append(label)
    return found


def _nodes(label: str, stacks: Mapping[tuple[str, ...], int], level: int) -> Iterator[tuple[int, int, int, str]]:
    """Yield (level, value, self, label) of a node and all below it; ``stacks`` are what is left of their paths there.

    Without recursion: stacks may be a thousand frames deep.
    """
    waiting = [(label, stacks, level)]
    while waiting:
        label, stacks, level = waiting.pop()
        below: dict[str, dict[tuple[str, ...], int]] = {}
        for path, value in stacks.items():
            if path:
                below.setdefault(path[0], {})[path[1:]] = value
        yield level, sum(stacks.values()), stacks.get((), 0), label
        # The last one in is the first one out: so the greatest goes in last.
        order = sorted(below.items(), key=lambda item: (sum(item[1].values()), item[0]))
        waiting += [(name, rest, level + 1) for name, rest in order]
