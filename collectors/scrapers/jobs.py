"""Which profiles are scraped now: targets come and go, and no number is lost or counted twice by it.

One profile at one address is one job, whoever names it: the first of the sources that do decides its labels. A job
whose target goes ends after the request under way. What it knew of a cumulative profile is kept for ten minutes, so
that the growth goes on where it stood when the target comes back; at an address that another pod has taken, it begins
anew. Not seen: one process under two addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from collectors.scrapers import rows
from collectors.scrapers.growth import Growth
from collectors.scrapers.settings import ScrapeTarget

SECOND = 1_000_000_000
REST_S = 600.0
_MOST_RESTING = 128
_BASELINE_WITHIN_S = 2

_Key = tuple[str, str]


@dataclass(slots=True, eq=False)
class Job:
    """One profile of one target."""

    target: ScrapeTarget
    profile: str
    interval_s: int
    growth: Growth = field(default_factory=Growth)
    last_time_ns: int = 0
    failing: bool = False
    ended: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> _Key:
        """Return what makes two jobs the same numbers."""
        return self.target.place(self.profile), self.profile

    @property
    def labels(self) -> tuple[str, str]:
        """Return the labels of its metrics."""
        return self.target.named(self.profile), self.profile

    @property
    def offset_ns(self) -> int:
        """Return where in the interval this job stands: fixed, and different for each target and profile."""
        digest = blake2b("\0".join(self.labels).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % (self.interval_s * SECOND)

    def next_ns(self, now_ns: int) -> int:
        """Return the first time after ``now_ns`` at which this job is due."""
        length, offset = self.interval_s * SECOND, self.offset_ns
        return ((now_ns - offset) // length + 1) * length + offset

    def first_ns(self, now_ns: int) -> int:
        """Return when to scrape for the first time: at once, nearly, where growth needs a scrape to grow from."""
        due = self.next_ns(now_ns)
        if self.profile not in rows.CUMULATIVE:
            return due
        return min(due, now_ns + self.offset_ns % (_BASELINE_WITHIN_S * SECOND))

    def change(self, target: ScrapeTarget, interval_s: int) -> None:
        """Take over what the target says now; the same process, under other labels or with another interval."""
        self.target, self.interval_s, self.ended = target, interval_s, False
        self._changed.set()

    def end(self) -> None:
        """Scrape no more, once the request under way is over."""
        self.ended = True
        self._changed.set()

    async def pause(self, seconds: float) -> None:
        """Wait, at most until something changes."""
        self._changed.clear()
        if not self.ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)


class Jobs:
    """The jobs of one agent; from one thread.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: dict[_Key, Job] = {}
        self._resting: dict[_Key, tuple[float, Job]] = {}

    def want(self, targets: Iterable[ScrapeTarget]) -> list[Job]:
        """Take in everything that is to be scraped, the most important first; returns the jobs to be started."""
        wanted: dict[_Key, tuple[ScrapeTarget, int]] = {}
        for target in targets:
            for profile, interval_s in target.intervals().items():
                wanted.setdefault((target.place(profile), profile), (target, interval_s))
        new = []
        for key, (target, interval_s) in wanted.items():
            job = self._jobs.get(key)
            if job is not None and _whose(job.target) == _whose(target):
                if job.ended or (job.target, job.interval_s) != (target, interval_s):
                    job.change(target, interval_s)
                continue
            if job is not None:
                job.end()
            self._jobs[key] = self._begun(key, target, interval_s)
            new.append(self._jobs[key])
        for key, job in self._jobs.items():
            if key not in wanted:
                job.end()
        return new

    def left(self, job: Job) -> bool:
        """Note that a job has ended; returns whether nothing else carries its metrics' labels."""
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]
        if job.profile in rows.CUMULATIVE:
            self._resting.pop(job.key, None)
            self._resting[job.key] = self._clock(), job
            while len(self._resting) > _MOST_RESTING:
                del self._resting[next(iter(self._resting))]
        return all(other.labels != job.labels for other in self._jobs.values())

    def _begun(self, key: _Key, target: ScrapeTarget, interval_s: int) -> Job:
        at, before = self._resting.pop(key, (0.0, None))
        if before is None or self._clock() - at > REST_S or _whose(before.target) != _whose(target):
            return Job(target, key[1], interval_s)
        return Job(target, key[1], interval_s, before.growth, before.last_time_ns)


def _whose(target: ScrapeTarget) -> tuple[str, str, str]:
    return target.namespace, target.pod, target.container
