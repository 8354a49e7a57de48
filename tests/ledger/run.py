"""One run: load, kills at random instants, members and partitions that come and go, outages, a full replay.

``python -m tests.ledger.run [--seed N] [--minutes M] [--outage SECONDS]`` runs until the time is over (``make soak``).
The seed fixes the rows and the order and the distances of what happens; what each process was doing then is chance.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from streams.schema.topics import RAW, RESULTS
from tests.ledger.ground import Ground
from tests.ledger.rows import ROWS
from tests.ledger.store import differences, tables

SHARES = {"sink": 13, "worker": 10, "agent": 9, "store": 7, "broker": 3}
"""How often each is killed among 42 kills."""


@dataclass(frozen=True)
class Plan:
    seed: int
    gap_s: float = 1.1
    """Mean time between two events; a broker or a store needs seconds more to start."""
    outage_s: float = 10.0
    pause_s: float = 0.01
    """Between two messages of the agent."""


_BEGAN = time.monotonic()


def say(line: str) -> None:
    sys.stderr.write(f"ledger: {time.monotonic() - _BEGAN:.0f} s: {line}\n")
    sys.stderr.flush()


class Run:
    """Carries out a plan on a ground."""

    def __init__(self, plan: Plan, ground: Ground) -> None:
        self.plan, self.ground = plan, ground
        self.chance = random.Random(plan.seed)
        self.killed: Counter[str] = Counter()
        self.grown: set[str] = set()

    def events(self) -> list[str]:
        """Return what happens, in order."""
        events = [name for name, count in SHARES.items() for _ in range(count)]
        self.chance.shuffle(events)
        # Members come and go, and partitions are added, at fixed shares of the run.
        step = len(events) // 8
        for at, what in enumerate(("worker leaves", "partitions raw", "sink leaves", "worker joins",
                                   "partitions results", "sink joins", "outage"), start=1):  # fmt: skip
            events.insert(at * (step + 1), what)
        return events

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.ground.tend()
            time.sleep(0.05)

    def happen(self, what: str) -> None:
        ground = self.ground
        kind, _, how = what.partition(" ")
        if kind == "partitions":
            if what not in self.grown:
                ground.add_partitions(RAW if how == "raw" else RESULTS, 6 if how == "raw" else 5)
            self.grown.add(what)
        elif what == "outage":
            self.outages()
        elif how == "leaves":
            ground.parts[f"{kind}-2"].end(kill=False)
        elif how == "joins":
            ground.parts[f"{kind}-2"].start()
        else:
            self.killed[what] += 1
            self.kill(what)

    def kill(self, what: str) -> None:
        ground = self.ground
        if what == "broker":
            ground.broker.kill()
            ground.broker.start(120)
        elif what == "store":
            ground.kill_store()
            ground.start_store()
        else:
            running = [p for p in ground.parts.values() if p.name.startswith(what) and p.wanted]
            part = self.chance.choice(running)
            part.end(kill=True)
            part.start()

    def outages(self) -> None:
        """The store away for a while, then Kafka: each holds what the other part cannot take."""
        ground = self.ground
        ground.kill_store()
        self.pause(self.plan.outage_s)
        ground.start_store()
        ground.broker.kill()
        self.pause(self.plan.outage_s)
        ground.broker.start(120)

    def overflow(self) -> None:
        """Kafka away for longer than the spools can bear: what they drop is counted to the last event."""
        ground = self.ground
        self.pause(3.0)
        ground.broker.kill()
        deadline = time.monotonic() + 60
        while not ground.owed():
            assert time.monotonic() < deadline, "no spool has dropped anything"
            self.pause(0.5)
        self.pause(2.0)
        ground.broker.start(120)
        self.pause(3.0)
        ground.finish_publishing()
        self.compare("after the spools overflowed", 60, dropped=True)
        certain, uncertain = ground.journals()
        assert not uncertain
        published = sum(ROWS[kind] for _node, kind, _number in certain)
        query = "SELECT sum(events), sum(lost) FROM (SELECT DISTINCT * FROM intervals)"
        with closing(ground.client()) as client:
            ((stored, lost),) = client.query(query).result_rows
        say(f"{published} events published, {stored} stored, {lost} counted lost, {ground.owed()} owed")
        assert lost > 0
        assert published == stored + lost + ground.owed()

    def compare(self, when: str, timeout_s: float, *, dropped: bool = False) -> None:
        """Wait until the tables equal the ledger, and look again a moment later.

        Raises:
            AssertionError: they do not in time.
        """
        wanted = self.ground.ledger(dropped=dropped).tables()
        deadline = time.monotonic() + timeout_s
        while not self.ground.idle() or self._wrong(wanted):
            if time.monotonic() > deadline:
                lines = self._wrong(wanted) or ["every sum is right, but a member still has something to do"]
                raise AssertionError(f"{when}, seed {self.plan.seed}:\n" + "\n".join(lines) + "\n" + self.ground.logs())
            time.sleep(0.5)
        time.sleep(1.0)
        lines = self._wrong(wanted)
        assert not lines, f"a moment after, {when}, seed {self.plan.seed}:\n" + "\n".join(lines)
        rows = sum(count for (*_, what), count in wanted["intervals"].items() if what == "rows")
        messages = sum(count for (*_, what), count in wanted["intervals"].items() if what == "messages")
        say(f"{when}: {messages} messages, {rows} rows, {sum(map(len, wanted.values()))} sums equal")

    def _wrong(self, wanted: dict[str, Counter]) -> list[str]:
        with closing(self.ground.client()) as client:
            return differences(wanted, tables(client))

    def replay(self) -> None:
        """Read everything again into the same tables."""
        for part in self.ground.parts.values():
            part.end(kill=True)
        self.ground.reset_groups()
        for name in ("sink-1", "worker-1"):
            self.ground.parts[name].start()

    def carry_out(self, more: Callable[[], bool] = lambda: False) -> None:
        say(f"seed {self.plan.seed}")
        began = time.monotonic()
        self.pause(3.0)
        while True:
            for what in self.events():
                self.happen(what)
                self.pause(self.chance.uniform(0.2, 2 * self.plan.gap_s - 0.2))
            if not more():
                break
        say(f"{sum(self.killed.values())} kills in {time.monotonic() - began:.0f} s: {dict(self.killed)}")
        self.ground.finish_publishing()
        say("everything is published")
        self.compare("after the kills", 90)
        self.replay()
        self.compare("after a full replay", 90)
        say(f"{time.monotonic() - began:.0f} s in all")


def run(plan: Plan, directory: Path, more: Callable[[], bool] = lambda: False) -> Run:
    """Carry out a plan in an empty directory; returns what was done.

    Raises:
        AssertionError: a sum differs from the ledger.
    """
    ground = Ground(directory, plan.seed, pause_s=plan.pause_s)
    one = Run(plan, ground)
    try:
        ground.start()
        one.carry_out(more)
    finally:
        ground.stop()
    return one


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make soak ARGS=", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the load lasts at least")
    parser.add_argument("--outage", type=float, default=120.0, help="seconds that store and Kafka are away each")
    given = parser.parse_args(arguments)
    until = time.monotonic() + given.minutes * 60
    with tempfile.TemporaryDirectory(prefix="perfstream-ledger-") as directory:
        try:
            run(Plan(given.seed, outage_s=given.outage), Path(directory), lambda: time.monotonic() < until)
        except AssertionError as error:
            sys.stderr.write(f"ledger: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
