"""Scrapes Go's pprof endpoints, each profile of each target on its own interval, and publishes them.

Measures: what the target's own runtime counts (CPU at 100 Hz while a ``profile`` runs, heap, allocations, goroutines,
lock and blocking contention), inlined frames included. Does not measure: CPU between two ``profile`` runs, nor what a
target counted between its last scrape and its end.

Costs here: two threads whatever the number of targets; a few ms of CPU for a profile of thousands of stacks. Costs the
target: what its runtime asks for a profile (CPU profiling some percent of what it uses while it runs).

One thread runs all requests side by side, so a slow target delays nobody; the other decodes and publishes, one profile
at a time. Answers are read into memory up to a bound, large ones a few at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Protocol

from prometheus_client import REGISTRY, CollectorRegistry

from collectors.scrapers import pprof, rows
from collectors.scrapers.fetch import fetch
from collectors.scrapers.jobs import SECOND, Job, Jobs
from collectors.scrapers.metrics import Metrics
from collectors.scrapers.settings import ScrapeTarget
from runtime.log import Once
from streams.schema.errors import CorruptRecordError, TargetUnavailableError

COLLECTOR = "pprof"
_LARGE_AT_ONCE = 3
_LOOK_S = 1.0
_LOG = logging.getLogger(__name__)


class Source(Protocol):
    """Where targets are found while the scraper runs."""

    @property
    def name(self) -> str:
        """What its metrics and log lines call it."""

    def targets(self) -> Sequence[ScrapeTarget]:
        """Return everything that is there now. Called once a second, from one thread; must not raise."""


class Scrapers:
    """Scrapes all targets of one agent.

    Args:
        targets: what is always scraped.
        publish: ``Publisher.publish``; called from one thread.
        registry: where the metrics go.
        sources: where more is found, the most important first; without targets and sources no thread starts.
        most: how many found targets are scraped at once; what is beyond is left out, counted and said.
    """

    def __init__(
        self,
        targets: Sequence[ScrapeTarget],
        publish: Callable[..., object],
        registry: CollectorRegistry = REGISTRY,
        *,
        sources: Sequence[Source] = (),
        most: int = 256,
    ) -> None:
        self._targets, self._sources, self._most = tuple(targets), tuple(sources), most
        self._publish = publish
        self._metrics = Metrics(registry)
        self._once = Once(_LOG)
        self._jobs = Jobs()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="scraper-decode")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        self._publishing = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Start scraping; no target need be there."""
        if self._targets or self._sources:
            self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """End within ``timeout_s``: requests under way are dropped, a profile being published is published whole."""
        deadline = time.monotonic() + timeout_s
        if self._publishing.acquire(timeout=timeout_s):
            self._closed = True
            self._publishing.release()
        self._closed = True
        loop, task = self._loop, self._main_task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(task.cancel)
        self._worker.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            self._thread.join(max(0.1, deadline - time.monotonic()))

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._main_task = asyncio.get_running_loop(), asyncio.current_task()
        # Names are looked up in threads of the loop's executor: few are enough.
        self._loop.set_default_executor(ThreadPoolExecutor(2, thread_name_prefix="scraper-names"))
        large = asyncio.Semaphore(_LARGE_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while not self._closed:
                for job in self._jobs.want(await self._wanted()):
                    group.create_task(self._watch(job, large))
                if not self._sources:
                    break
                await asyncio.sleep(_LOOK_S)

    async def _wanted(self) -> list[ScrapeTarget]:
        """Return what is to be scraped now."""
        wanted, room = list(self._targets), self._most
        for source in self._sources:
            # In a thread: a disk may hang, and scraping must not.
            found = await asyncio.get_running_loop().run_in_executor(None, source.targets)
            wanted += found[:room]
            left_out, room = max(0, len(found) - room), max(0, room - len(found))
            self._metrics.targets.labels(source.name).set(len(found) - left_out)
            self._metrics.left_out.labels(source.name).set(left_out)
            if left_out:
                self._once.warning(f"most {source.name}", "too many targets: the rest is left out, see "
                                   "agent.discovery.max_targets", source=source.name, left_out=left_out)  # fmt: skip
        return wanted

    async def _watch(self, job: Job, large: asyncio.Semaphore) -> None:
        # A target that is down from the start is to be seen.
        self._metrics.up.labels(*job.labels).set(0)
        self._metrics.scrapes.labels(*job.labels)
        try:
            await self._repeat(job, large)
        finally:
            if job.ended and self._jobs.left(job):
                self._metrics.forget(job.labels)

    async def _repeat(self, job: Job, large: asyncio.Semaphore) -> None:
        due = job.first_ns(time.time_ns())
        while not job.ended:
            if (left := due - time.time_ns()) > 0:
                # In steps: a clock that is set back must not put the next scrape off for hours.
                await job.pause(min(left / SECOND, 60.0))
                due = min(due, job.next_ns(time.time_ns()))
                continue
            await self._scrape(job, large)
            before, due = due, job.next_ns(time.time_ns())
            missed = (due - job.next_ns(before)) // (job.interval_s * SECOND)
            if missed > 0:
                self._metrics.skipped.labels(*job.labels).inc(missed)

    async def _scrape(self, job: Job, large: asyncio.Semaphore) -> None:
        """Scrape once; whatever goes wrong is counted, logged once, and over."""
        began = time.monotonic()
        self._metrics.scrapes.labels(*job.labels).inc()
        try:
            await self._attempt(job, large)
        except TargetUnavailableError as error:
            self._failed(job, error.reason, str(error))
        except CorruptRecordError as error:
            self._failed(job, "not_profile", str(error))
        except Exception as error:  # noqa: BLE001 - the other profiles and targets go on
            _LOG.debug("scrape failed", exc_info=True)
            self._failed(job, "internal", f"{type(error).__name__}: {error}")
        else:
            self._metrics.up.labels(*job.labels).set(1)
            self._metrics.last.labels(*job.labels).set(time.time())
            if job.failing:
                _LOG.info("scrapes again", extra={"target": job.labels[0], "profile": job.profile})
            job.failing = False
        self._metrics.seconds.labels(job.profile).observe(time.monotonic() - began)

    async def _attempt(self, job: Job, large: asyncio.Semaphore) -> None:
        target = job.target
        timeout_s = target.timeout_s + (target.seconds if job.profile == "profile" else 0)
        began_ns = time.time_ns()
        async with AsyncExitStack() as held:

            def grow() -> Coroutine[Any, Any, object]:
                return held.enter_async_context(large)

            body = await fetch(target.url(job.profile), target.access, timeout_s, pprof.MAX_COMPRESSED, grow)
            ended_ns = time.time_ns()
            self._metrics.bytes.labels(*job.labels).inc(len(body))
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._worker, self._take, job, body, began_ns, ended_ns)

    def _take(self, job: Job, body: bytes, began_ns: int, ended_ns: int) -> None:
        """Decode and publish one profile, in the worker's thread."""
        profile = pprof.decode(body)
        columns = rows.select(job.profile, profile)
        start_ns, end_ns, skewed = rows.span(job.profile, profile, began_ns, ended_ns)
        if profile.time_ns and profile.time_ns == job.last_time_ns:
            raise TargetUnavailableError("it gives the same profile as before (is there a cache?)", "repeated")
        with self._publishing:
            if self._closed:
                return
            # Whatever publishing comes to, this profile is not published again.
            job.last_time_ns = profile.time_ns
            if job.profile in rows.CUMULATIVE:
                grown = job.growth.advance(columns, profile.process, start_ns)
                if grown is None:
                    return
                columns, start_ns, end_ns = grown.columns, grown.start_ns, start_ns
                if grown.restarted:
                    self._metrics.restarts.labels(*job.labels).inc()
            batch, events = rows.build(job.target, columns, start_ns)
            self._publish(COLLECTOR, "profile", batch, start_ns, end_ns, events, 0)
        self._metrics.rows.labels(*job.labels).inc(batch.num_rows)
        if skewed:
            self._metrics.skewed.labels(*job.labels).inc()
            self._once.warning(f"clock {job.labels}", "a target's clock disagrees; its profiles get this node's time",
                               target=job.labels[0])  # fmt: skip

    def _failed(self, job: Job, reason: str, text: str) -> None:
        job.failing = True
        self._metrics.failed(job.labels, reason)
        self._once.warning(f"{job.labels} {reason}", f"cannot scrape: {text}", target=job.labels[0],
                           profile=job.profile, reason=reason)  # fmt: skip
