"""The commands ``perfstream sink`` and ``perfstream migrate``."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
from pathlib import Path

import click

from runtime import log as runtime_log
from runtime.memory import use_malloc
from runtime.observe import Health, serve
from runtime.settings import load
from sinks.settings import SinkSettings
from streams.schema.errors import PerfstreamError

log = logging.getLogger(__name__)


def _settings(config: Path | None, kafka: str | None, dsn: str | None) -> SinkSettings:
    settings = load(SinkSettings, config)
    if kafka:
        settings = dataclasses.replace(settings, kafka=dataclasses.replace(settings.kafka, bootstrap_servers=kafka))
    if dsn:
        settings = dataclasses.replace(settings, clickhouse=dataclasses.replace(settings.clickhouse, dsn=dsn))
    return settings


_CONFIG = click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings.")
_DSN = click.option("--dsn", help="ClickHouse, as http://host:port/database.")


@click.command()
@_CONFIG
@click.option("--kafka", help="Kafka's bootstrap servers, host:port.")
@_DSN
@click.option("--topic-prefix", help="Put before each topic's name.")
@click.option("--group", help="Consumer group.")
@click.option("--http-port", type=int, help="Port of /metrics and /healthz; 0 takes a free one.")
def sink(
    config: Path | None,
    kafka: str | None,
    dsn: str | None,
    topic_prefix: str | None,
    group: str | None,
    http_port: int | None,
) -> None:
    """Store raw messages and window results in ClickHouse, every row once."""
    try:
        settings = _settings(config, kafka, dsn)
        if topic_prefix is not None:
            settings = dataclasses.replace(settings, topic_prefix=topic_prefix)
        if group:
            settings = dataclasses.replace(settings, group=group)
        if http_port is not None:
            settings = dataclasses.replace(settings, http=dataclasses.replace(settings.http, port=http_port))
        clean = run(settings)
    except PerfstreamError as error:
        raise click.ClickException(str(error)) from error
    if not clean:
        # A thread may still wait for the store. Its batch is announced: the next sink finishes it.
        logging.shutdown()
        os._exit(0)


def run(settings: SinkSettings) -> bool:
    """Run a sink until SIGTERM or SIGINT; returns whether everything in progress was finished.

    Raises:
        SettingsError: the address for metrics cannot be bound, or the DSN is wrong.
    """
    from sinks.client import database_of
    from sinks.consumer import Sink
    from sinks.metrics import Metrics

    runtime_log.configure("sink", settings.log_level)
    use_malloc()
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # says what we say, once for each try
    database_of(settings.clickhouse)
    health, metrics = Health(), Metrics()
    health.ill("kafka", "not connected yet")
    port = serve(settings.http, health)
    log.info("sink started", extra={"http_port": port, "group": settings.group})

    async def main() -> bool:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)
        return await Sink(settings, health, metrics).run(stop)

    return asyncio.run(main())


@click.command()
@_CONFIG
@_DSN
def migrate(config: Path | None, dsn: str | None) -> None:
    """Create the database and bring its tables up to date; safe to repeat."""
    from sinks.migrate import migrate as apply

    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what it says is said here, in one line
    try:
        settings = _settings(config, None, dsn)
        applied = apply(settings.clickhouse)
    except PerfstreamError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"applied {', '.join(applied)}" if applied else "nothing to do: the tables are up to date")
