"""``perfstream ingest``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from runtime import log, settings
from runtime.stopping import until_asked


@click.command(short_help="Receive profiles that programs push (Pyroscope's protocols).")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file (TOML).")
@click.option("--host", help="Address to listen on; beyond loopback only with a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port for clients [4040]; 0 takes a free one.")
@click.option("--kafka", help="Bootstrap servers, host:port, separated by commas.")
@click.option("--http-port", type=int, help="Port of /metrics and /healthz; 0 takes a free one.")
@click.option("--topic-prefix", help="Put before every topic's name.")
def ingest(
    config: Path | None,
    host: str | None,
    port: int | None,
    kafka: str | None,
    http_port: int | None,
    topic_prefix: str | None,
) -> None:
    """Receive profiles over HTTP and publish them to Kafka until SIGTERM or Ctrl-C.

    Pyroscope's clients work unchanged: POST /ingest and /push.v1.PusherService/Push; OTLP profiles at
    /v1development/profiles and by gRPC (port 4317). An answer of 200 means that Kafka has acknowledged the profile.
    Settings: [ingest], [kafka], [http], cluster and node.
    """
    from runtime.memory import use_malloc

    use_malloc()
    from collectors.ingest.process import run
    from collectors.ingest.settings import IngestSettings

    given = settings.load(IngestSettings, config)
    changes = {key: value for key, value in {"host": host, "port": port}.items() if value is not None}
    given = replace(given, ingest=replace(given.ingest, **changes))  # type: ignore[arg-type]
    if kafka is not None:
        given = replace(given, kafka=replace(given.kafka, bootstrap_servers=kafka))
    if http_port is not None:
        given = replace(given, http=replace(given.http, port=http_port))
    if topic_prefix is not None:
        given = replace(given, topic_prefix=topic_prefix)
    stop = until_asked()
    log.configure("ingest", given.log_level)
    run(given, stop)
