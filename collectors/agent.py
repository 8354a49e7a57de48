"""The node agent: start what can run here, drain it at every boundary of the clock, publish, keep to the budget.

One thread (the caller's) does all of it; the publisher and the scrapers have threads of their own. A collector that
cannot start, or fails while it runs, is reported in ``/healthz`` and ``perfstream_agent_collector_up``, and the others
go on; one that failed while it ran is started again after a minute.

What the programs cost in the kernel they tell themselves (``bpf/cost.h``): the kernel's account would ask for a right
that the agent gives up, and cost half as much as the programs do.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from collectors.agent_metrics import AgentMetrics
from collectors.base import Collector, Scales
from collectors.bpf import kernel
from collectors.budget import Budget, Change
from collectors.catalogue import Entry, Shared, chosen
from collectors.publisher import Publisher
from collectors.settings import AgentSettings
from runtime.observe import Health
from streams.schema.errors import KernelError

log = logging.getLogger("perfstream.agent")

SECOND = 1_000_000_000
_AGAIN_S = 60.0
_STARTERS = 2


@dataclass(slots=True)
class Running:
    """One collector of this agent. ``collector`` is None while it does not run; ``why`` then says why."""

    entry: Entry
    collector: Collector | None = None
    why: str = ""
    seconds: float = 0.0
    """User CPU that its last interval cost."""
    again_at: float | None = None


class Agent:
    """Runs the collectors of one node.

    Args:
        settings: everything the agent reads.
        shared: what the collectors have in common.
        publisher: started by the caller.
        health: where collectors that do not run are reported.
        metrics: the agent's counters.
    """

    def __init__(
        self, settings: AgentSettings, shared: Shared, publisher: Publisher, health: Health, metrics: AgentMetrics
    ) -> None:
        self._options = settings.agent
        self._shared, self._publisher, self._health, self._metrics = shared, publisher, health, metrics
        self.running = [Running(entry) for entry in chosen(self._options.collectors)]
        cores = len(kernel.online_cpus())
        levers = {each.entry.name: each.entry.lever for each in self.running}
        self.budget = Budget(self._options.budget_percent / 100 * cores, levers)
        self._shares: dict[str, float] = {}
        self._told_ns: dict[str, int] = {}
        self._cpu_before = 0.0
        health.ask("kafka", lambda: publisher.trouble)
        self._interval_began_ns = 0

    def start(self) -> None:
        """Load and attach every collector; the first start compiles, some at the same time."""
        began = time.monotonic()
        with ThreadPoolExecutor(_STARTERS, thread_name_prefix="start") as pool:
            list(pool.map(self._start, self.running))
        up = [each.entry.name for each in self.running if each.collector is not None]
        log.info("collectors run", extra={"collectors": up, "seconds": round(time.monotonic() - began, 1)})
        for each in self.running:
            if each.why:
                log.error("a collector does not run", extra={"collector": each.entry.name, "why": each.why})
        self._report()
        self._interval_began_ns = time.time_ns()
        self._cpu_before = _cpu_seconds()

    def run(self, stop: threading.Event, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Collect at every boundary of the clock until ``stop``, and then what has been counted since."""
        length = self._options.interval_s * SECOND
        while True:
            boundary = (now_ns() // length + 1) * length
            if self._wait(stop, boundary, now_ns):
                break
            end_ns = max(boundary, now_ns() // length * length)  # later ones may have passed while we slept
            self._turn(end_ns)
        self._turn(now_ns())
        self.close()

    def _wait(self, stop: threading.Event, until_ns: int, now_ns: Callable[[], int]) -> bool:
        """Wait for a boundary; returns whether to stop."""
        return stop.wait(max(0.0, (until_ns - now_ns()) / SECOND))

    def _measure(self, seconds: float) -> None:
        """Learn what each collector's programs have cost since the last time, in cores."""
        before, told = self._told_ns, {}
        for each in self.running:
            if each.collector is not None:
                told[each.entry.name] = each.collector.stats().told_ns
        self._told_ns = told
        self._shares = {}
        for name, now in told.items():
            was = before.get(name, 0)
            self._shares[name] = (now - was if was <= now else now) / 1e9 / seconds  # less: it was started anew
        for each in self.running:  # of one that does not run: nothing
            self._metrics.kernel_share.labels(each.entry.name).set(self._shares.get(each.entry.name, 0.0))

    def _turn(self, end_ns: int) -> None:
        start_ns, self._interval_began_ns = self._interval_began_ns, end_ns
        if end_ns <= start_ns:
            return  # the clock was set back: the next boundary takes it all
        for each in self.running:
            if each.collector is not None:
                self._collect(each, start_ns, end_ns)
            elif each.again_at is not None and time.monotonic() >= each.again_at:
                self._start(each)
        self._measure((end_ns - start_ns) / SECOND)
        self._keep_to_budget((end_ns - start_ns) / SECOND)
        self._report()

    def _collect(self, each: Running, start_ns: int, end_ns: int) -> None:
        assert each.collector is not None
        name, began, used = each.entry.name, time.monotonic(), time.thread_time()
        try:
            batch = each.collector.collect(start_ns, end_ns)
        except Exception as error:
            log.exception("a collector failed", extra={"collector": name})
            self._down(each, f"failed: {error}", again=True)
            return
        if batch is not None:
            done = self._publisher.publish(
                name, each.collector.schema, batch.batch, start_ns, end_ns, batch.events, batch.lost
            )
            self._metrics.published(name, done, batch.events, batch.lost, time.monotonic() - began)
        each.seconds = time.thread_time() - used

    def _start(self, each: Running) -> None:
        each.again_at = None
        collector = each.entry.make(self._shared)
        try:
            collector.start()
        except KernelError as error:
            self._down(each, str(error).splitlines()[0], again=False)
            collector.close()
        except Exception as error:
            log.exception("a collector could not start", extra={"collector": each.entry.name})
            self._down(each, f"could not start: {error}", again=True)
            collector.close()
        else:
            each.collector, each.why = collector, ""
            effort = self.budget.effort(each.entry.name)
            self._metrics.effort.labels(each.entry.name).set(effort)
            if isinstance(collector, Scales) and 0 < effort < 1:
                collector.relieve(self._options, effort)

    def _down(self, each: Running, why: str, *, again: bool) -> None:
        collector, each.collector, each.why, each.seconds = each.collector, None, why, 0.0
        each.again_at = time.monotonic() + _AGAIN_S if again else None
        if collector is not None:
            collector.close()

    def _keep_to_budget(self, seconds: float) -> None:
        cpu = _cpu_seconds()
        spent, self._cpu_before = cpu - self._cpu_before, cpu
        costs = {
            each.entry.name: self._shares.get(each.entry.name, 0.0) + each.seconds / seconds for each in self.running
        }
        changes = self.budget.observe(spent / seconds + sum(self._shares.values()), costs)
        self._metrics.budget_used.set(self.budget.used / self.budget.limit if self.budget.limit else 0.0)
        for change in changes:
            self._change(change)

    def _change(self, change: Change) -> None:
        log.warning(
            "the CPU budget changes what is measured",
            extra={
                "collector": change.name,
                "effort": change.effort,
                "used_percent_of_a_core": round(self.budget.used * 100, 2),
                "budget_percent_of_a_core": round(self.budget.limit * 100, 2),
            },
        )
        each = next(each for each in self.running if each.entry.name == change.name)
        collector = each.collector
        self._metrics.effort.labels(change.name).set(change.effort)
        if change.effort == 0:
            self._down(each, _OVER_BUDGET, again=False)
        elif collector is None and each.why == _OVER_BUDGET:
            self._start(each)
        elif collector is not None and isinstance(collector, Scales):
            collector.relieve(self._options, change.effort)

    def _report(self) -> None:
        down = [each for each in self.running if each.collector is None]
        for each in self.running:
            self._metrics.up.labels(each.entry.name).set(each.collector is not None)
        if down:
            self._health.ill("collectors", _one_line(down))
        else:
            self._health.well("collectors")
        used = f"uses {self.budget.used * 100:.1f} % of a core, {self.budget.limit * 100:.1f} % is the budget"
        if self.budget.exceeded:
            self._health.ill("budget", f"{used} (agent.budget_percent); it samples less until it fits")
        else:
            self._health.well("budget")

    def close(self) -> None:
        """Detach and free every collector."""
        for each in self.running:
            if each.collector is not None:
                each.collector.close()
                each.collector = None


_OVER_BUDGET = "given up to keep to the CPU budget (agent.budget_percent)"


def _one_line(down: list[Running]) -> str:
    by_reason: dict[str, list[str]] = {}
    for each in down:
        by_reason.setdefault(each.why, []).append(each.entry.name)
    return "; ".join(f"{', '.join(names)} off: {why}" for why, names in by_reason.items())


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
