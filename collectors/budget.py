"""The agent's CPU budget: which collector has to become cheaper, or may do more again.

Pure arithmetic, time passed in. After ``PATIENCE`` intervals in a row above what is aimed at, a little less than the
limit, the costliest collectors that still can are relieved, as many as it takes by what they cost: the effort of each
halves. Where that was not enough, the next interval goes on. What counts is the cheaper of the last two intervals: one
that reads the symbols of new programs, or makes up for a time without CPU, says little about the next.

When no effort is left to take away from what costs something, the costliest that may is given up. That loses all that
it measures, so it takes ``LONG_PATIENCE`` intervals above the limit in a row, or twice the limit: a broker that is
away for half a minute makes the process dearer, and that passes.

After some intervals in a row in which there was room for it, a collector's last relief is taken back, that of the one
that would cost least; if it has to be repeated, that takes twice as long each time, so that nothing goes on and off
for ever.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

PATIENCE = 2
LONG_PATIENCE = 6
CALM = 6
MOST_CALM = 360
LEAST = 1 / 16
_AIM = 0.95
"""Of the limit: intervals differ, and their average is to stay below the limit."""
_WORTH = 0.1
"""Of the limit: relieving a collector that costs less than this brings next to nothing."""
_FALLS = 0.9
"""Where a relief left more than this share of what a collector had cost, others are relieved first."""
_SLACK = 0.1
"""Of the limit: nothing is given up for so little."""
_ROOM = 0.75
"""Of the limit: a relief is taken back when not more than this would be used."""


@dataclass(frozen=True, slots=True)
class Lever:
    """What can be done about one collector: halve its effort (``scales``), stop it (``stops``), or both."""

    scales: bool = False
    stops: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One collector's new effort: 1 all of it, 0 given up."""

    name: str
    effort: float


@dataclass(slots=True)
class Budget:
    """``limit`` is in cores: 0.02 is one percent of two CPUs. ``used`` is what the last interval cost, in cores."""

    limit: float
    levers: Mapping[str, Lever] = field(default_factory=dict)
    used: float = 0.0
    _efforts: dict[str, float] = field(default_factory=dict)
    _reliefs: dict[str, list[float]] = field(default_factory=dict)  # the efforts before each
    _calm: dict[str, int] = field(default_factory=dict)
    _taken_back: set[str] = field(default_factory=set)
    _cost_at_relief: dict[str, float] = field(default_factory=dict)
    _above_aim: int = 0
    _above_limit: int = 0
    _lately: deque[float] = field(default_factory=lambda: deque(maxlen=LONG_PATIENCE))
    _roomy: dict[str, int] = field(default_factory=dict)  # intervals in a row with room for taking its last one back
    _costs_before: Mapping[str, float] = field(default_factory=dict)

    def effort(self, name: str) -> float:
        """Return a collector's effort now."""
        return self._efforts.get(name, 1.0)

    @property
    def exceeded(self) -> bool:
        """Whether it was exceeded in the last interval by so much, or in so many in a row, that it is to be told."""
        return self.used > 2 * self.limit or self._above_limit >= PATIENCE

    def observe(self, used: float, costs: Mapping[str, float]) -> list[Change]:
        """Take in an interval; returns what has to change, each collector at most once.

        Args:
            used: cores that the process and its programs used.
            costs: cores that each collector used, as far as they can be told apart.
        """
        over, self.used = min(used, self.used) - _AIM * self.limit, used
        self._lately.append(used)
        self._above_aim = self._above_aim + 1 if used > _AIM * self.limit else 0
        self._above_limit = self._above_limit + 1 if used > self.limit else 0
        lasting = {name: min(cost, self._costs_before.get(name, 0.0)) for name, cost in costs.items()}
        self._costs_before = dict(costs)
        more = {name: self._costs_more(name, costs) for name in self._reliefs}
        roomy = [name for name in self._reliefs if used + more[name] <= _ROOM * self.limit]
        self._roomy = {name: self._roomy.get(name, 0) + 1 for name in roomy}
        if self._above_aim >= PATIENCE:
            return self._relieve(over, lasting)
        ripe = [name for name in roomy if self._roomy[name] >= self._calm.get(name, CALM)]
        return [self._take_back(min(ripe, key=lambda name: (more[name], name)))] if ripe else []

    def _costs_more(self, name: str, costs: Mapping[str, float]) -> float:
        """Return how many more cores a collector would use without its last relief."""
        effort = self.effort(name)
        if effort:
            return costs.get(name, 0.0) * (self._reliefs[name][-1] / effort - 1)
        # What it would cost now is not known: not more than then, or it is tried where half of the limit is free.
        return min(self._cost_at_relief[name], (_ROOM - 0.5) * self.limit)

    def _take_back(self, name: str) -> Change:
        self._roomy.clear()  # what follows is to show what that takes
        efforts = self._reliefs[name]
        self._efforts[name] = efforts.pop()
        if not efforts:
            del self._reliefs[name]
        self._taken_back.add(name)
        self._cost_at_relief.pop(name, None)
        return Change(name, self._efforts[name])

    def _relieve(self, over: float, costs: Mapping[str, float]) -> list[Change]:
        changes = list[Change]()
        worth = [name for name in self.levers if costs.get(name, 0.0) >= _WORTH * self.limit]
        worth.sort(key=lambda name: (-costs[name], name))
        scalable = [name for name in worth if self.levers[name].scales and self.effort(name) > LEAST]
        helpful = [name for name in scalable if costs[name] <= _FALLS * self._cost_at_relief.get(name, math.inf)]
        for name in helpful or scalable[:1]:
            if over > 0:
                over -= costs[name] / 2
                changes.append(self._lower(name, self.effort(name) / 2, costs[name]))
        if changes or not self._lasts():
            return changes
        stoppable = [name for name in worth if self.levers[name].stops and self.effort(name) > 0]
        self._lately.clear()  # what follows is to show whether that was enough
        return [self._lower(name, 0.0, costs[name]) for name in stoppable[:1]]

    def _lasts(self) -> bool:
        """Return whether the limit is exceeded for so long, or by so much, that something may be given up."""
        lately = list(self._lately)
        if len(lately) >= PATIENCE and min(lately[-PATIENCE:]) > 2 * self.limit:
            return True
        return len(lately) == LONG_PATIENCE and min(lately) > (1 + _SLACK) * self.limit

    def _lower(self, name: str, effort: float, cost: float) -> Change:
        if name in self._taken_back:
            self._taken_back.remove(name)
            self._calm[name] = min(MOST_CALM, self._calm.get(name, CALM) * 2)
        self._reliefs.setdefault(name, []).append(self.effort(name))
        self._efforts[name] = effort
        self._cost_at_relief[name] = cost
        return Change(name, effort)
