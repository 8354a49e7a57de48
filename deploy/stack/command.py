"""``perfstream up``."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from deploy.stack import status
from deploy.stack.settings import Ports, StackSettings
from deploy.stack.supervisor import Stack
from runtime import settings as settings_module
from runtime import workdir as workdirs
from runtime.stopping import until_asked


@click.command(short_help="Run the whole stack on this machine, with live status.")
@click.option("--workdir", type=click.Path(path_type=Path, file_okay=False), help="Where all data live [.perfstream].")
@click.option(
    "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file (TOML) of all stages."
)
@click.option("--free-ports", is_flag=True, help="Take free ports instead of the usual ones.")
@click.option("--timeout", type=float, default=0.0, help="End by itself after so many seconds [never].")
def up(workdir: Path | None, config: Path | None, free_ports: bool, timeout: float) -> None:
    """Run Kafka, the store, the worker, the sink, the push endpoint and the agent here until Ctrl-C.

    All data stay under --workdir across restarts; DIR/endpoints.json holds the addresses, DIR/logs each stage's log.
    """
    settings = settings_module.load(StackSettings, config)
    if free_ports:
        settings = replace(settings, ports=Ports.free())
    stopping = until_asked()
    console = Console(stderr=False)
    stack = Stack(workdirs.workdir(workdir), settings, config)
    try:
        addresses = stack.start(lambda line: console.print(f"[dim]{line} …[/dim]"), stopping.is_set)
        console.print(
            f"[bold green]up[/bold green] in {stack.started_in_s:.1f} s   clickhouse {addresses.clickhouse}   "
            f"kafka {addresses.kafka}   data {stack.directory}",
            soft_wrap=True,
        )
        _watch(stack, console, stopping, timeout)
    finally:
        console.print("[dim]ending …[/dim]")
        stack.stop()


def _watch(stack: Stack, console: Console, stopping: threading.Event, timeout: float) -> None:
    began = time.monotonic()
    every = 2.0 if console.is_terminal else 10.0
    notes: list[str] = []
    before = status.look(stack.stages)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        shown_at = time.monotonic()
        while not stopping.is_set() and not (timeout and time.monotonic() - began > timeout):
            stopping.wait(0.5)
            fresh = stack.tend()
            notes = [*notes, *fresh][-5:]
            if time.monotonic() - shown_at < every:
                continue
            now = status.look(stack.stages)
            uptime = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - began))
            table = status.table(stack.stages, before, now, f"perfstream · up {uptime} · Ctrl-C ends it")
            below = [*status.troubles(now), *(notes if console.is_terminal else fresh)]
            lines = [Text(line, style="yellow") for line in below]
            if console.is_terminal:
                live.update(Group(table, *lines), refresh=True)
            else:
                console.print(table, *lines, sep="\n")
            before, shown_at = now, time.monotonic()
