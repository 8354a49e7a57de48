"""Two flame graphs become one that shows what changed: nodes of both, each with its share of either whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from dashboards.reading import Flamegraph

_DIGITS = 9


@dataclass(slots=True)
class _Node:
    label: str
    sums: list[float] = field(default_factory=lambda: [0, 0, 0, 0])
    children: dict[str, _Node] = field(default_factory=dict)


def difference(baseline: Flamegraph, comparison: Flamegraph) -> Flamegraph:
    """Return the nodes of both, in depth-first pre-order, as wide as their two shares together.

    So what was removed stays visible, and a busier side is not wider. ``before`` and ``after`` are the shares (0..1). A
    node that one side drew and the other had folded into ``(other)`` is off by what is folded: see ``MIN_SHARE``.
    """
    root = _Node("total")
    for side, graph in enumerate((baseline, comparison)):
        path: list[_Node] = []
        for level, inclusive, self_value, label in zip(graph.level, graph.value, graph.self, graph.label, strict=True):
            del path[level:]
            if path:
                node = path[-1].children.get(label)
                if node is None:
                    node = path[-1].children[label] = _Node(label)
            else:
                node = root
            node.sums[2 * side] += inclusive
            node.sums[2 * side + 1] += self_value
            path.append(node)
    merged = Flamegraph("share", [], [], [], [])
    wholes = [graph.total or 1 for graph in (baseline, comparison)]
    waiting = [(0, root)]
    while waiting:
        level, node = waiting.pop()
        value, own = ([round(node.sums[i + at] / wholes[i // 2], _DIGITS) for i in (0, 2)] for at in (0, 1))
        merged.level.append(level)
        merged.label.append(node.label)
        merged.before.append(value[0])
        merged.after.append(value[1])
        merged.value.append(value[0] + value[1])
        merged.self.append(own[0] + own[1])
        waiting += [(level + 1, node.children[label]) for label in sorted(node.children, reverse=True)]
    return merged
