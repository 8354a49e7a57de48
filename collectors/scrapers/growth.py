"""The growth of a cumulative profile between two scrapes.

State: 16 bytes and a value for each type, for each stack of the last scrape; the decoder bounds how many those are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from collectors.scrapers.rows import MAX_SPAN_NS, Columns


@dataclass(frozen=True, slots=True)
class _Last:
    ids: NDArray[np.uint64]
    values: NDArray[np.int64]
    events: NDArray[np.int64]
    process: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class Grown:
    """What was added since the last scrape, from ``start_ns`` on; ``restarted`` when the target began anew."""

    columns: Columns
    start_ns: int
    restarted: bool


class Growth:
    """Remembers one cumulative profile of one target."""

    def __init__(self) -> None:
        self._last: _Last | None = None

    def advance(self, columns: Columns, process: str, time_ns: int) -> Grown | None:
        """Take in a scrape and return the growth since the one before; None for the first, which says not since when.

        The sum of all growth equals the last value minus the first. A target that began anew (another address space,
        or a value that fell) counts from zero, so its values are the growth; what its predecessor added after it was
        last scraped is unknown. A span of more than an hour is stamped as the last hour.

        Args:
            columns: the profile's values since the target's start.
            process: see ``Profile.process``.
            time_ns: when they were taken.
        """
        order = np.argsort(columns.ids, kind="stable")
        last, self._last = self._last, _Last(
            columns.ids[order], columns.values[order], columns.events[order], process, time_ns
        )  # fmt: skip
        if last is None:
            return None
        before, events_before, gone = _before(last, columns)
        values, events = columns.values - before, columns.events - events_before
        moved = bool(process and last.process and process != last.process)
        restarted = moved or gone or bool(np.any(values < 0))
        if restarted:
            values, events = columns.values, columns.events
        start_ns = max(min(last.time_ns, time_ns - 1), time_ns - MAX_SPAN_NS)
        return Grown(replace(columns, values=values, events=events), start_ns, restarted)


def _before(last: _Last, columns: Columns) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Return (earlier values of each stack, its earlier events, whether a stack that had values is gone)."""
    values, events = np.zeros_like(columns.values), np.zeros_like(columns.events)
    if not len(last.ids):
        return values, events, False
    at = np.minimum(np.searchsorted(last.ids, columns.ids), len(last.ids) - 1)
    found = last.ids[at] == columns.ids
    values[found], events[found] = last.values[at[found]], last.events[at[found]]
    seen = np.zeros(len(last.ids), np.bool_)
    seen[at[found]] = True
    return values, events, bool(np.any(last.values[~seen] != 0))
