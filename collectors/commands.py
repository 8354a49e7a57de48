"""``perfstream agent``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime import log, settings
from runtime.stopping import until_asked

if TYPE_CHECKING:
    from collectors.settings import AgentSettings


@click.command(short_help="Run the node agent: eBPF collectors and scrapers to Kafka.")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file (TOML).")
@click.option("--kafka", help="Bootstrap servers, host:port, separated by commas.")
@click.option("--http-port", type=int, help="Port of /metrics and /healthz; 0 takes a free one.")
@click.option("--topic-prefix", help="Put before every topic's name.")
@click.option("--spool", type=click.Path(path_type=Path, file_okay=False), help="Where messages wait for Kafka.")
def agent(
    config: Path | None, kafka: str | None, http_port: int | None, topic_prefix: str | None, spool: Path | None
) -> None:
    """Measure this node and publish to Kafka until SIGTERM or Ctrl-C.

    It gives up every right but a few before it loads its programs (see collectors/privileges.py).
    Without root, or where something is missing, the collectors that cannot run are named in the log and in /healthz,
    and everything else goes on. Settings: [agent], [spool], [kafka], [http], cluster and node.
    """
    from collectors.settings import AgentSettings

    given = settings.load(AgentSettings, config)
    if kafka is not None:
        given = replace(given, kafka=replace(given.kafka, bootstrap_servers=kafka))
    if http_port is not None:
        given = replace(given, http=replace(given.http, port=http_port))
    if topic_prefix is not None:
        given = replace(given, topic_prefix=topic_prefix)
    if spool is not None:
        given = replace(given, spool=replace(given.spool, directory=spool))
    stop = until_asked()
    log.configure("agent", given.log_level)
    _confine(given)
    from collectors.node import run

    run(given, stop)


def _confine(given: AgentSettings) -> None:
    """Do what needs rights that are given up, and give them up; before anything is imported that starts threads."""
    from collectors import privileges
    from collectors.bpf import requirements
    from collectors.bpf.compile import default_cache

    requirements.missing()  # mounts tracefs and links kernel headers
    for directory in (given.spool.directory, default_cache()):
        privileges.take_over(directory)
    privileges.drop(privileges.kept(given.agent.collectors).values())
