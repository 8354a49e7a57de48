"""Starts the stack in the right order, keeps it running, ends it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from deploy.stack import plan, process
from deploy.stack.process import Stage
from deploy.stack.settings import StackSettings
from runtime import workdir as workdirs
from streams import topics_admin
from streams.schema.errors import PerfstreamError, SettingsError, StoreUnavailableError

Report = Callable[[str], None]


class StackFailedError(PerfstreamError):
    """A stage keeps dying, so the stack has ended."""


class Stack:
    """The local stack. ``start`` returns when every stage runs; ``tend`` must be called about once a second."""

    def __init__(
        self,
        directory: Path,
        settings: StackSettings,
        config: Path | None = None,
        extra: Mapping[str, str] | None = None,
        without: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.settings = settings
        self._config = config
        self._extra = dict(extra or {})
        self._without = without
        self._lock: IO[str] | None = None
        self._broker_stage: Stage | None = None
        self.stages: dict[str, Stage] = {}
        self.started_in_s = 0.0
        self._stopped: Callable[[], bool] = lambda: False

    def start(
        self, report: Report = lambda _line: None, stopped: Callable[[], bool] = lambda: False
    ) -> workdirs.Endpoints:
        """Start everything; returns the addresses, which are also in ``endpoints.json``.

        ``stopped`` is asked while it waits, so that Ctrl-C need not wait for a start that takes long.

        Raises:
            SettingsError: a port is taken, the directory is in use, or something is not installed.
            StackFailedError: a stage did not come up.
            KeyboardInterrupt: it was asked to stop meanwhile.
        """
        self._stopped = stopped
        began = time.monotonic()
        self._take_directory()
        ports = plan.choose_ports(self.settings.ports, self.directory)
        addresses = plan.endpoints(ports)
        broker = plan.broker(ports, self.directory)
        self.stages = plan.stages(ports, self.directory, self._config, self._extra)
        for name in self._without:
            del self.stages[name]
        report("starting Kafka and the store")
        self.stages["store"].start()
        # The agent compiles its programs meanwhile; what it has counted waits in its spool until Kafka answers.
        if "agent" in self.stages:
            self.stages["agent"].start()
        broker.prepare()
        kafka = Stage("kafka", broker.run_command(), plan.named("kafka"), self.directory / "logs" / "kafka.log")
        self._broker_stage = kafka
        kafka.start()
        self.stages = {"kafka": kafka, **self.stages}
        self._migrate(addresses)
        self._await_port(kafka, ports.kafka)
        report("creating topics")
        asyncio.run(topics_admin.apply({"bootstrap_servers": addresses.kafka}, partitions=self.settings.partitions))
        report("starting worker, sink, agent and the push endpoint")
        for name in ("worker", "sink", "ingest"):
            if name in self.stages:
                self.stages[name].start()
        for name in ("sink", "worker", "ingest", "agent"):
            if name in self.stages:
                self._await_healthy(self.stages[name])
        workdirs.write(self.directory, addresses)
        self.started_in_s = time.monotonic() - began
        return addresses

    def tend(self) -> list[str]:
        """Restart what has died; returns a line for each death.

        Raises:
            StackFailedError: a stage keeps dying.
        """
        lines = []
        now = time.monotonic()
        for stage in self.stages.values():
            if stage.tend(now, self.settings.steady_s):
                lines.append(
                    f"{stage.name} ended with {stage.last_exit}; starting it again in {stage.next_start - now:.1f} s "
                    f"(log: {stage.log})"
                )
                if stage.deaths >= self.settings.give_up_after:
                    raise StackFailedError(
                        f"{stage.name} died {stage.deaths} times; last words:\n{stage.last_words()}\nlog: {stage.log}"
                    )
        return lines

    def stop(self) -> None:
        """End every stage, the sources of data first, and give the directory back."""
        names = ("agent", "ingest", "worker", "sink", "store", "kafka")
        order = [self.stages[name] for name in names if name in self.stages]
        process.stop(order, self.settings.stop_timeout_s)
        (self.directory / "endpoints.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = (self.directory / "lock").open("w")
        except OSError as error:
            raise SettingsError(
                f"cannot write to {self.directory}: {error.strerror}; choose another --workdir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise SettingsError(
                f"a stack already runs in {self.directory}; end it or give another --workdir"
            ) from error
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _must_go_on(self, stage: Stage) -> None:
        if self._stopped():
            raise KeyboardInterrupt
        if not stage.running:
            raise StackFailedError(f"{stage.name} ended at once; last words:\n{stage.last_words()}\nlog: {stage.log}")

    def _migrate(self, addresses: workdirs.Endpoints) -> None:
        deadline = time.monotonic() + 30
        store = self.stages["store"]
        base = addresses.clickhouse.rsplit("/", 1)[0]
        while not _answers(f"{base}/ping"):
            self._must_go_on(store)
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"the store did not answer in 30 s; see {store.log}")
            time.sleep(0.05)
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "migrate"],
            env={**os.environ, **store.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StackFailedError(f"the tables could not be made: {done.stderr.strip()[-500:]}")

    def _await_port(self, stage: Stage, port: int, timeout_s: float = 60.0) -> None:
        import socket

        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._must_go_on(stage)
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise StackFailedError(f"{stage.name} did not listen on port {port} in {timeout_s:.0f} s; see {stage.log}")

    def _await_healthy(self, stage: Stage, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._must_go_on(stage)
            if _answers(f"{stage.metrics}/healthz", any_status=True):
                return
            time.sleep(0.05)
        raise StackFailedError(f"{stage.name} did not become ready in {timeout_s:.0f} s; see {stage.log}")


def _answers(url: str, *, any_status: bool = False) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback addresses
            return True
    except urllib.error.HTTPError:
        return any_status
    except OSError:
        return False
