"""``perfstream store``: run the embedded ClickHouse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from runtime import log, settings


@click.command()
@click.option("--path", type=click.Path(path_type=Path, file_okay=False), help="Directory of the data.")
@click.option("--host", help="Address to listen on; beyond loopback only with a password.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the HTTP interface; 0 takes a free one.")
def store(path: Path | None, host: str | None, port: int | None) -> None:
    """Run the embedded ClickHouse: its HTTP interface over the chdb engine, in one process.

    Settings: the [store] table of the settings file, or PERFSTREAM_STORE_* (path, host, port, username, password,
    reader_username, reader_password, max_execution_s, memory_ratio, ...). Stops cleanly on SIGTERM or Ctrl-C.
    """
    from sinks.embedded import environment
    from sinks.embedded.process import run
    from sinks.embedded.settings import StoreSettings

    environment.hide()
    given = settings.load(StoreSettings)
    changes = {key: value for key, value in {"path": path, "host": host, "port": port}.items() if value is not None}
    given = replace(given, store=replace(given.store, **changes))  # type: ignore[arg-type]
    log.configure("store", given.log_level)
    run(given)
