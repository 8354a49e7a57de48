"""Options that gadgets share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from runtime import kafka_command
from streams.schema.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
SHOWN_ROWS = 20
"""Of a table that is refreshed."""


def of_the_cluster(command: F) -> F:
    """Add ``--cluster``, ``--node``, and where Kafka is (``runtime.kafka_command``)."""
    command = kafka_command.options(command)
    for option in (
        click.option("--node", default="", help="With --cluster: only this node."),
        click.option("--cluster", is_flag=True, help="Follow every node's rows on Kafka instead of watching this one."),
    ):
        command = option(command)
    return command


def here_only(node: str) -> None:
    """Check the options of a gadget that runs on this node.

    Raises:
        UsageError: another node is asked for.
    """
    if node:
        raise UsageError("--node goes with --cluster; without it this node is watched")
