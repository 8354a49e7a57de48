"""Where a command finds Kafka: its options, then the settings, then the stack that runs here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from runtime import workdir
from runtime.settings import KafkaSettings, load
from streams.schema.errors import SettingsError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Where:
    """A command's ``[kafka]`` and ``topic_prefix``."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    topic_prefix: str = ""


def options(command: F) -> F:
    """Add ``--config``, ``--kafka`` and ``--topic-prefix``, as ``config``, ``kafka`` and ``topic_prefix``."""
    for option in (
        click.option("--topic-prefix", help="Stands before each topic's name."),
        click.option("--kafka", help="Kafka's bootstrap servers; default: settings, then the stack that runs here."),
        click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings."),
    ):
        command = option(command)
    return command


def find(config: Path | None, kafka: str | None, topic_prefix: str | None) -> Where:
    """Return what the options and settings say.

    Raises:
        SettingsError: they say nothing, and no stack runs here; or they are wrong.
    """
    settings = load(Where, config)
    if topic_prefix is not None:
        settings = replace(settings, topic_prefix=topic_prefix)
    if kafka:
        return replace(settings, kafka=replace(settings.kafka, bootstrap_servers=kafka))
    if "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS" not in os.environ and settings.kafka == KafkaSettings():
        return replace(settings, kafka=replace(settings.kafka, bootstrap_servers=_local()))
    return settings


def _local() -> str:
    try:
        return workdir.read().kafka
    except SettingsError as error:
        raise SettingsError(str(error).replace("--dsn", "--kafka")) from error
