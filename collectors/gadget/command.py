"""``perfstream gadget``: trace and profile this machine live, with the very collectors that the agent runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click

from collectors.gadget import watch
from runtime.stopping import until_asked
from streams.schema.errors import UsageError

F = Callable[..., Any]
SECOND = 1_000_000_000


@click.group()
def gadget() -> None:
    """Trace, profile or watch this machine live. Needs root; no Kafka and no store."""


gadget.add_command(watch.top)
gadget.add_command(watch.snapshot)


@gadget.command("list")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_(form: str) -> None:
    """Show what can be watched, and what the agent collects all the time."""
    from collectors.catalogue import ALL

    rows = [
        {
            "gadget": f"{entry.verb} {entry.shown_as}" if entry.verb else entry.name,
            "what": entry.what,
            "live": bool(entry.verb),
            "always_on": entry.always_on,
        }
        for entry in ALL
    ]
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(len(str(row["gadget"])) for row in rows)
    click.secho(f"{'GADGET':<{width}}  {'LIVE':<4}  {'AGENT':<9}  WHAT", bold=True)
    for row in rows:
        always = "always on" if row["always_on"] else "on demand"
        click.echo(f"{row['gadget']:<{width}}  {'yes' if row['live'] else '-':<4}  {always:<9}  {row['what']}")


def _names(verb: str) -> list[str]:
    from collectors.catalogue import of_verb

    return list(of_verb(verb))


def _filters(command: F) -> F:
    for option in reversed(
        (
            click.option("-n", "--namespace", default="", help="Only this Kubernetes namespace."),
            click.option("--pod", default="", help="Only this pod."),
            click.option("--container", default="", help="Only this container."),
            click.option("--service", default="", help="Only this service."),
        )
    ):
        command = option(command)
    return command


@gadget.command()
@click.argument("name", type=click.Choice(_names("trace")))
@_filters
@click.option("--pid", type=int, help="Only this process.")
@click.option("--uid", type=int, help="Only this user.")
@click.option("--comm", default="", help="Only commands of this name.")
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--min-latency", default="", metavar="TIME", help="Only what took at least this long, e.g. 5ms.")
@click.option("-o", "output", default="columns", show_default=True, help="columns, columns=a,b,... or json.")
@click.option("--timeout", type=click.FloatRange(0), default=0.0, help="End after so many seconds [never].")
def trace(
    name: str,
    namespace: str,
    pod: str,
    container: str,
    service: str,
    pid: int | None,
    uid: int | None,
    comm: str,
    failed: bool,
    min_latency: str,
    output: str,
    timeout: float,
) -> None:
    """Show each event as it happens, until Ctrl-C or --timeout; then how many, and how many were lost."""
    from collectors.catalogue import Shared, of_verb
    from collectors.events import EventCollector
    from collectors.gadget.filters import Filters, duration_ns
    from collectors.gadget.output import Printer
    from collectors.settings import AgentOptions
    from collectors.symbols import Symbolizer
    from collectors.wanted import Wanted
    from collectors.workload import Workloads
    from streams.schema.messages import EVENT

    # What the kernel knows is looked at there; what only the node knows, here.
    in_kernel = Wanted(pid, uid, comm, failed, duration_ns(min_latency) if min_latency else 0)
    wanted = Filters(namespace, pod, container, service)
    printer = Printer(output, [name for name in EVENT.names if not name.endswith("_ns")])
    collector = of_verb("trace")[name].load().make(Shared(Workloads(), Symbolizer(), AgentOptions()), in_kernel)
    assert isinstance(collector, EventCollector)
    stop = until_asked()
    collector.start(live=True)
    try:
        printer.heading()
        deadline = time.monotonic() + timeout if timeout else float("inf")
        seen = shown = 0
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            records = collector.poll(min(left, 0.2))
            if not len(records):
                continue
            collector.observe(records)
            rows = wanted.apply(collector.rows(records))
            seen, shown = seen + len(records), shown + rows.num_rows
            if rows.num_rows:
                printer.rows(rows)
        click.echo(f"{seen:,} events, {shown:,} shown, {collector.lost():,} lost", err=True)
    finally:
        collector.close()


@gadget.command()
@click.argument("name", type=click.Choice(_names("profile")))
@_filters
@click.option("--pid", type=int, help="Only this process.")
@click.option("-o", "output", type=click.Choice(["columns", "json"]), default="columns", show_default=True)
@click.option("--interval", type=click.FloatRange(0.1), help="Print and begin anew every so many seconds.")
@click.option("--timeout", type=click.FloatRange(0), default=0.0, help="End after so many seconds [never].")
def profile(
    name: str,
    namespace: str,
    pod: str,
    container: str,
    service: str,
    pid: int | None,
    output: str,
    interval: float | None,
    timeout: float,
) -> None:
    """Count latencies in the kernel, until Ctrl-C or --timeout; then show their distribution."""
    from collectors.catalogue import Shared, of_verb
    from collectors.gadget import histogram
    from collectors.gadget.filters import Filters
    from collectors.settings import AgentOptions
    from collectors.symbols import Symbolizer
    from collectors.wanted import Wanted
    from collectors.workload import Workloads

    if timeout and interval and interval > timeout:
        raise UsageError("--interval is longer than --timeout")
    wanted = Filters(namespace, pod, container, service)
    shared = Shared(Workloads(), Symbolizer(), AgentOptions())
    collector = of_verb("profile")[name].load().make(shared, Wanted(pid))
    stop = until_asked()
    collector.start()
    began = time.time_ns()
    try:
        click.echo(f"counting {name}; Ctrl-C shows it", err=True)
        deadline = time.monotonic() + timeout if timeout else float("inf")
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            stop.wait(min(left, interval or left, 3600))
            if not interval and not stop.is_set() and time.monotonic() < deadline:
                continue
            now = time.time_ns()
            batch = collector.collect(began, now)
            began = now
            rows = wanted.apply(batch.batch) if batch else None
            if rows is not None and rows.num_rows:
                (histogram.print_json if output == "json" else histogram.print_table)(rows)
            events, lost = (batch.events, batch.lost) if batch else (0, 0)
            click.echo(f"{events:,} events, {lost:,} lost", err=True)
    finally:
        collector.close()
