"""``perfstream demo``: the stack around a known workload; exits 0 only if what it measured agrees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dashboards.profile_commands import profile
from deploy.demo import check
from deploy.demo.workload import VERSION, Workload
from deploy.stack.settings import Ports, StackSettings
from deploy.stack.supervisor import Stack
from runtime import settings as settings_module
from runtime.workdir import Endpoints
from streams.schema.topics import RAW

INTERVAL_S = 5
CPU_HZ = 199


@click.command(short_help="Run the stack around a known workload and check what it measured.")
@click.option("--seconds", type=click.FloatRange(10, 600), default=40, show_default=True, help="How long to load it.")
@click.option("--workdir", type=click.Path(path_type=Path, file_okay=False), help="Keep all data here [a new folder].")
@click.option("--keep", is_flag=True, help="Leave the stack running until Ctrl-C afterwards.")
@click.option(
    "--flamegraph",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("artifacts/flamegraph.html"),
    show_default=True,
    help="Where to write the flame graph.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def demo(seconds: float, workdir: Path | None, keep: bool, flamegraph: Path, form: str) -> int:
    """Start the whole pipeline, load this machine in a known way, and compare.

    The workload burns CPU in three functions as 5 : 3 : 2, contends for a CPU, executes, connects and writes a counted
    number of times, and serves Go profiles when Go is there. Exits 0 only if the pipeline measured just that.
    """
    console = Console(stderr=form == "json")
    directory = workdir or Path(tempfile.mkdtemp(prefix="perfstream-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    work = Workload(directory / "workload", seconds)
    work.build()
    work.start_go()
    config = directory / "demo.toml"
    config.write_text(_configuration(work))
    settings = replace(settings_module.load(StackSettings, config), ports=Ports.free())
    stack = Stack(directory, settings, config)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        addresses = stack.start(lambda line: console.print(f"[dim]{line} …[/dim]"))
        console.print(f"[bold green]up[/bold green] in {stack.started_in_s:.1f} s; data in {directory}", soft_wrap=True)
        _load(stack, work, seconds, console)
        _settle(stack, addresses, console)
        findings = _measure(addresses, stack, work)
        if form == "json":
            sys.stdout.write(json.dumps([vars_of(finding) for finding in findings], indent=1) + "\n")
        _show(addresses, flamegraph, console, findings)
        if keep:
            console.print("the stack goes on; Ctrl-C ends it")
            while True:
                time.sleep(1)
                stack.tend()
    finally:
        work.stop()
        stack.stop()
    wrong = [finding for finding in findings if not finding.agrees]
    console.print(
        f"[bold red]{len(wrong)} of {len(findings)} comparisons disagree[/bold red]"
        if wrong
        else f"[bold green]all {len(findings)} comparisons agree[/bold green]"
    )
    return 1 if wrong else 0


def vars_of(finding: check.Finding) -> dict[str, object]:
    """Return a finding as a mapping, for JSON."""
    return {name: getattr(finding, name) for name in ("what", "expected", "measured", "agrees")}


def _configuration(work: Workload) -> str:
    # Exactness is shown here, not thrift: the workload and the whole pipeline share one machine, so the budget would
    # make the agent sample what is counted below. At the usual 49 Hz, 20 seconds of CPU are 1,000 samples, and a share
    # of 30 % is 1.4 points off by chance alone: one run in ten would fail.
    lines = [f"[agent]\ninterval_s = {INTERVAL_S}\nbudget_percent = 100\ncpu_hz = {CPU_HZ}"]
    if work.go_address:
        lines.append(
            f'[[agent.scrape]]\naddress = "http://{work.go_address}"\nservice = "demo-go"\nversion = "{VERSION}"\n'
            "profiles = { profile = 10, heap = 10, goroutine = 10, mutex = 10, block = 10, allocs = 10 }\nseconds = 8\n"
        )
    return "\n".join(lines)


def _load(stack: Stack, work: Workload, seconds: float, console: Console) -> None:
    # The agent's first full interval starts after its programs are loaded: nothing of the workload may come before.
    time.sleep(INTERVAL_S)
    work.start()
    until = time.monotonic() + seconds
    with console.status("") as line:
        while (left := until - time.monotonic()) > 0:
            line.update(f"measuring the known workload, {left:.0f} s to go")
            for note in stack.tend():
                console.print(note, style="yellow")
            time.sleep(0.5)
    work.finish()


def _settle(stack: Stack, addresses: Endpoints, console: Console) -> None:
    """End the agent, so that what it has counted is complete, and wait until the rest has taken it all in."""
    console.print("[dim]letting the pipeline take in what is under way …[/dim]")
    time.sleep(INTERVAL_S + 1)
    agent = stack.stages.pop("agent")
    agent.signal(signal.SIGTERM)
    deadline = time.monotonic() + 15
    while agent.running and time.monotonic() < deadline:
        time.sleep(0.05)
    agent.signal(signal.SIGKILL)
    client = connect(addresses)
    published = messages_published(addresses)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stack.tend()
        stored = client.query("SELECT count() FROM intervals FINAL").result_rows[0][0]
        pairs = client.query(
            "SELECT (SELECT sum(value) FROM samples), (SELECT sum(self) FROM hotspots_final), "
            "(SELECT sum(events) FROM intervals FINAL WHERE schema = 'latency'), (SELECT sum(count) FROM latency_final)"
        ).result_rows[0]
        if stored >= published and pairs[0] == pairs[1] and pairs[2] == pairs[3]:
            return
        time.sleep(0.5)


def connect(addresses: Endpoints) -> Any:  # noqa: ANN401 - clickhouse-connect is untyped
    """Return a client on the stack's database."""
    import clickhouse_connect

    return clickhouse_connect.get_client(dsn=addresses.clickhouse)


def messages_published(addresses: Endpoints) -> int:
    """Return how many messages the raw topics hold."""

    async def ask() -> int:
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(*(topic.name for topic in RAW), bootstrap_servers=addresses.kafka)
        await consumer.start()
        try:
            return sum((await consumer.end_offsets(consumer.assignment())).values())
        finally:
            await consumer.stop()

    return asyncio.run(ask())


def _measure(addresses: Endpoints, stack: Stack, work: Workload) -> list[check.Finding]:
    client = connect(addresses)
    kernel = os.geteuid() == 0 or client.query("SELECT count() FROM samples WHERE type = 'cpu'").result_rows[0][0] > 0
    findings = check.workload(client, work.truth, kernel=kernel, go=work.has_go)
    findings += check.accounting(client, messages_published(addresses))
    findings += check.dashboards(addresses.clickhouse)
    for stage in stack.stages.values():
        findings.append(check.Finding(f"restarts of {stage.name}", "0", str(stage.restarts), stage.restarts == 0))
    return findings


def _show(addresses: Endpoints, flamegraph: Path, console: Console, findings: list[check.Finding]) -> None:
    """Show what a user would ask next, with the commands that ask it."""
    for arguments in (
        ("top", "-n", "12"),
        ("top", "--type", "offcpu", "-n", "6"),
        ("latency", "-n", "12"),
        ("events", "-n", "12"),
        ("flamegraph", "-o", str(flamegraph)),
    ):
        console.print(f"\n[bold]perfstream profile {' '.join(arguments)}[/bold]")
        with contextlib.redirect_stdout(console.file):
            profile.main([*arguments, "--dsn", addresses.clickhouse], standalone_mode=False)
    console.print()
    table = Table(title="measured against the known workload", title_justify="left", box=None, pad_edge=False)
    for heading in ("", "expected", "measured", ""):
        table.add_column(heading)
    for finding in findings:
        mark = "[green]✓[/green]" if finding.agrees else "[red]✗[/red]"
        table.add_row(finding.what, finding.expected, finding.measured, mark)
    console.print(table)
