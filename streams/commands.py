"""``perfstream worker`` and ``perfstream topics``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.schema.errors import BrokerUnavailableError, PerfstreamError, TopicMismatchError
from streams.schema.topics import ALL, HOTSPOTS, LATENCY_WINDOWS, RAW_LATENCIES, RAW_PROFILES, Topic

if TYPE_CHECKING:
    from streams.settings import WorkerSettings

STOP_S = 4.0

_CONFIG = click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings.")
_KAFKA = click.option("--kafka", help="Kafka's bootstrap servers, host:port.")
_PREFIX = click.option("--topic-prefix", help="Put before each topic's name.")
_PARTITIONS = click.option(
    "--partitions", type=click.IntRange(1), help="Partitions of each topic; default as declared."
)


def _settings(
    config: Path | None, kafka: str | None, topic_prefix: str | None, partitions: int | None
) -> WorkerSettings:
    from runtime.settings import load
    from streams.settings import WorkerSettings

    settings = load(WorkerSettings, config)
    if kafka:
        settings = replace(settings, kafka=replace(settings.kafka, bootstrap_servers=kafka))
    if topic_prefix is not None:
        settings = replace(settings, topic_prefix=topic_prefix)
    if partitions is not None:
        settings = replace(settings, partitions=partitions)
    return settings


def _prefixed(settings: WorkerSettings, topics: tuple[Topic, ...]) -> list[Topic]:
    return [replace(topic, name=settings.topic_prefix + topic.name) for topic in topics]


@click.group()
def topics() -> None:
    """Create and check the Kafka topics."""


@topics.command()
@_CONFIG
@_KAFKA
@_PREFIX
@_PARTITIONS
@click.option("--replication", type=click.IntRange(1), default=1, show_default=True, help="Replicas of new topics.")
def apply(
    config: Path | None, kafka: str | None, topic_prefix: str | None, partitions: int | None, replication: int
) -> None:
    """Create what is missing; fail when an existing topic disagrees with its declaration."""
    from streams import topics_admin

    settings = _settings(config, kafka, topic_prefix, partitions)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it says is said here, in one line
    wanted = _prefixed(settings, ALL)
    made = asyncio.run(
        topics_admin.apply(settings.kafka.client_options(), wanted, settings.partitions or None, replication)
    )
    for topic in wanted:
        click.echo(f"{topic.name}: {'created' if topic.name in made else 'as declared'}")


@topics.command("list")
@_CONFIG
@_PREFIX
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_(config: Path | None, topic_prefix: str | None, form: str) -> None:
    """Show the declared topics."""
    settings = _settings(config, None, topic_prefix, None)
    rows = [
        {
            "topic": topic.name, "key": topic.key, "schema": topic.schema,
            "partitions": (settings.partitions or topic.partitions) if topic.partitions > 1 else 1,
            "retention_h": topic.retention_ms // 3_600_000,
        }
        for topic in _prefixed(settings, ALL)
    ]  # fmt: skip
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    texts = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@click.command()
@_CONFIG
@_KAFKA
@_PREFIX
@_PARTITIONS
@click.option("--datadir", type=click.Path(path_type=Path, file_okay=False), help="Faust's working directory.")
@click.option("--group", help="Consumer group.")
@click.option("--http-port", type=int, help="Port of /metrics and /healthz; 0 takes a free one.")
def worker(
    config: Path | None,
    kafka: str | None,
    topic_prefix: str | None,
    partitions: int | None,
    datadir: Path | None,
    group: str | None,
    http_port: int | None,
) -> None:
    """Run the Faust worker: raw profiles and latencies to windows."""
    settings = _settings(config, kafka, topic_prefix, partitions)
    options = settings.worker
    options = replace(options, datadir=datadir or options.datadir, group=group or options.group)
    settings = replace(settings, worker=options)
    if http_port is not None:
        settings = replace(settings, http=replace(settings.http, port=http_port))
    run_worker(settings)


def run_worker(settings: WorkerSettings) -> None:
    """Run the worker; ends the process, with status 0 only after SIGTERM or SIGINT.

    Raises:
        PerfstreamError: it cannot start: settings, broker, topics.
    """
    from runtime import log
    from runtime.memory import use_malloc
    from runtime.observe import Health, serve

    log.configure("worker", settings.log_level)
    use_malloc()
    for noisy in ("aiokafka", "kafka", "faust", "mode"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    guard = Guard(settings.worker.stall_s)
    threading.Thread(target=guard.await_signal, args=(_signals(),), name="signals", daemon=True).start()
    asyncio.run(check_topics(settings))
    settings.worker.datadir.mkdir(parents=True, exist_ok=True)
    sys.argv = sys.argv[:1]  # faust parses it on import
    from streams import app
    from streams.metrics import WorkerMetrics

    health = guard.health = Health()
    port = serve(settings.http, health)
    logging.getLogger("perfstream.worker").info("worker starts", extra={"http_port": port})
    threading.Thread(target=guard.watch, name="watchdog", daemon=True).start()

    async def run() -> None:
        failure = await app.run(settings, health, WorkerMetrics(), guard.bind)
        if failure is not None:
            expected = isinstance(failure, PerfstreamError)
            logging.getLogger("perfstream.worker").error("worker failed", exc_info=None if expected else failure)
            click.echo(f"perfstream: worker ends: {failure}", err=True)
        app.end(0 if failure is None else 1)

    asyncio.run(run())


def _signals() -> int:
    """Return a file descriptor that tells SIGTERM and SIGINT at once, even while the main thread is busy.

    Blocking them for a thread with ``sigwait`` would not do: NumPy's threads are there already, and would take them.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return readable


async def check_topics(settings: WorkerSettings) -> None:
    """Check that the topics exist with enough partitions.

    Raises:
        BrokerUnavailableError: Kafka did not answer.
        TopicMismatchError: a topic is missing or too small.
    """
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    from runtime.kafka import refusal

    where = settings.kafka.bootstrap_servers
    admin = AIOKafkaAdminClient(**settings.kafka.client_options())
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        reason = await refusal(settings.kafka.client_options()) or error
        raise BrokerUnavailableError(f"Kafka at {where} cannot be used: {reason}") from error
    try:
        wanted = _prefixed(settings, (RAW_PROFILES, RAW_LATENCIES, HOTSPOTS, LATENCY_WINDOWS))
        present = set(await admin.list_topics())
        missing = [topic.name for topic in wanted if topic.name not in present]
        if missing:
            raise TopicMismatchError(
                f"topics are missing: {', '.join(missing)}; run 'perfstream topics apply' first, "
                "or let this user read and describe them"
            )
        for described in await admin.describe_topics([topic.name for topic in wanted]):
            found = len(described["partitions"])
            if found < settings.partitions:
                raise TopicMismatchError(
                    f"topic {described['topic']} has {found} partitions where {settings.partitions} are set; "
                    "add partitions, or change the setting"
                )
    finally:
        await admin.close()


class Guard:
    """Ends the process from outside its event loop: on a signal, and when it stands still."""

    def __init__(self, stall_s: float) -> None:
        from runtime.observe import Health

        self._stall_s = stall_s
        self._worker: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.health = Health()

    def bind(self, worker: Any, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ANN401 - the module imports faust
        """Learn what to watch."""
        self._worker, self._loop = worker, loop

    def await_signal(self, readable: int) -> None:
        """Stop in good order at the first signal, by force ``STOP_S`` seconds later. Exactness needs neither."""
        os.read(readable, 1)
        if self._loop is None:
            os._exit(0)
        self._loop.call_soon_threadsafe(self._worker.stopping.set)
        time.sleep(STOP_S)
        os._exit(0)

    def watch(self) -> None:
        """End the process when it makes no progress in spite of lag, or its event loop stands still."""
        seen, since = -1, time.monotonic()
        while True:
            time.sleep(0.5)
            worker, now = self._worker, time.monotonic()
            if worker is None:
                reason = "starting" if now - since > self._stall_s else ""
            else:
                stuck = now - worker.alive_at > max(self._stall_s, 5)
                if worker.progress != seen or not (worker.behind or stuck):
                    seen, since = worker.progress, now
                reason = f"no progress for {now - since:.0f} s" if now - since > self._stall_s / 2 else ""
            if not reason:
                self.health.well("progress")
                continue
            self.health.ill("progress", reason)
            if now - since > self._stall_s:
                click.echo(f"perfstream: worker ends: {reason}; a restart reads from the last commit", err=True)
                os._exit(1)
