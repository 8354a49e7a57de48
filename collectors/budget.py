"""The agent's CPU budget: which collector has to become cheaper, or may do more again.

Pure arithmetic, time passed in. After ``PATIENCE`` intervals above the limit in a row the costliest collector that
still can is relieved: its effort halves, and below ``LEAST`` it is given up. After some intervals in a row below half
of the limit the last relief is taken back; if it has to be repeated, that takes twice as long each time, so that
nothing goes on and off for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PATIENCE = 2
CALM = 6
MOST_CALM = 360
LEAST = 1 / 16


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
    _reliefs: list[Change] = field(default_factory=list)  # with the effort before
    _calm: dict[str, int] = field(default_factory=dict)
    _above: int = 0
    _below: int = 0

    def effort(self, name: str) -> float:
        """Return a collector's effort now."""
        return self._efforts.get(name, 1.0)

    def observe(self, used: float, costs: Mapping[str, float]) -> Change | None:
        """Take in an interval; returns what has to change.

        Args:
            used: cores that the process and its programs used.
            costs: cores that each collector used, as far as they can be told apart.
        """
        self.used = used
        self._above = self._above + 1 if used > self.limit else 0
        self._below = self._below + 1 if used < self.limit / 2 else 0
        if self._above >= PATIENCE:
            self._above = 0
            return self._relieve(costs)
        if self._reliefs and self._below >= self._calm.get(self._reliefs[-1].name, CALM):
            self._below = 0
            last = self._reliefs.pop()
            self._efforts[last.name] = last.effort
            return last
        return None

    def _relieve(self, costs: Mapping[str, float]) -> Change | None:
        for name in sorted(self.levers, key=lambda name: (-costs.get(name, 0.0), name)):
            lever, effort = self.levers[name], self.effort(name)
            if lever.scales and effort > LEAST:
                smaller = effort / 2
            elif lever.stops and effort > 0:
                smaller = 0.0
            else:
                continue
            if name in self._calm:
                self._calm[name] = min(MOST_CALM, self._calm[name] * 2)
            else:
                self._calm[name] = CALM
            self._reliefs.append(Change(name, effort))
            self._efforts[name] = smaller
            return Change(name, smaller)
        return None
