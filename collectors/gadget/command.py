"""``perfstream gadget``: trace and profile this machine live, with the very collectors that the agent runs; or all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from collectors.gadget import watch
from collectors.gadget.options import here_only, of_the_cluster
from runtime import kafka_command
from streams.schema.errors import UsageError

F = Callable[..., Any]


@click.group()
def gadget() -> None:
    """Trace, profile or watch this machine live: needs root, no Kafka, no store. With --cluster, every node."""


gadget.add_command(watch.top)
gadget.add_command(watch.snapshot)
gadget.add_command(watch.cost)


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
@of_the_cluster
@click.option("--pid", type=int, help="Only this process.")
@click.option("--uid", type=int, help="Only this user.")
@click.option("--comm", default="", help="Only commands of this name.")
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--min-latency", default="", metavar="TIME", help="Only what took at least this long, e.g. 5ms.")
@click.option("--args", is_flag=True, help="Show the arguments of programs; exec only. No agent collects them.")
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
    args: bool,
    output: str,
    timeout: float,
    cluster: bool,
    node: str,
    config: Path | None,
    kafka: str | None,
    topic_prefix: str | None,
) -> None:
    """Show each event as it happens, until Ctrl-C or --timeout; then how many, and how many were lost."""
    from collectors.catalogue import of_verb
    from collectors.gadget import tracing
    from collectors.gadget.filters import Filters, duration_ns
    from collectors.gadget.output import EVENT_COLUMNS, Printer
    from collectors.wanted import Wanted
    from streams.schema.messages import EVENT

    entry = of_verb("trace")[name]
    if args:
        if name != "exec" or cluster:
            raise UsageError("--args is for exec on this node: agents do not collect arguments")
        entry = replace(entry, where="trace.exec:ExecArguments")
        if output == "columns":
            output = f"columns={','.join(EVENT_COLUMNS[:-1])},attributes"
    least = duration_ns(min_latency) if min_latency else 0
    known = [name for name in ("cluster", "node", *EVENT.names) if not name.endswith("_ns")]
    printer = Printer(output, known, nodes=cluster)
    if cluster:
        everything = Filters(namespace, pod, container, service, comm, pid, uid, failed, least, node)
        where = kafka_command.find(config, kafka, topic_prefix)
        tracing.cluster(entry, where, everything, printer, timeout)
        return
    here_only(node)
    wanted = Filters(namespace, pod, container, service)
    tracing.here(entry, Wanted(pid, uid, comm, failed, least), wanted, printer, timeout)


@gadget.command()
@click.argument("name", type=click.Choice(_names("profile")))
@_filters
@of_the_cluster
@click.option("--pid", type=int, help="Only this process.")
@click.option("--uid", type=int, help="Only this user.")
@click.option("--comm", default="", help="Only threads whose command has this name.")
@click.option(
    "-o",
    "output",
    type=click.Choice(["columns", "json", "folded"]),
    default="columns",
    show_default=True,
    help="folded: stacks as text, of cpu and offcpu.",
)
@click.option(
    "--flamegraph", type=click.Path(path_type=Path, dir_okay=False), help="Write stacks to this HTML file, too."
)
@click.option("--interval", type=click.FloatRange(0.1), help="Print and begin anew every so many seconds.")
@click.option("--timeout", type=click.FloatRange(0), default=0.0, help="End after so many seconds [never].")
def profile(
    name: str,
    namespace: str,
    pod: str,
    container: str,
    service: str,
    pid: int | None,
    uid: int | None,
    comm: str,
    output: str,
    flamegraph: Path | None,
    interval: float | None,
    timeout: float,
    cluster: bool,
    node: str,
    config: Path | None,
    kafka: str | None,
    topic_prefix: str | None,
) -> None:
    """Count latencies or stacks in the kernel, until Ctrl-C or --timeout; then show where the time went."""
    from collectors.catalogue import of_verb
    from collectors.gadget import counting, histogram, stacks
    from collectors.gadget.filters import Filters
    from collectors.wanted import Wanted

    if timeout and interval and interval > timeout:
        raise UsageError("--interval is longer than --timeout")
    if name in ("softirq", "hardirq") and (pid is not None or uid is not None or comm):
        raise UsageError("interrupts belong to no process: --pid, --uid and --comm do not go with them")
    entry = of_verb("profile")[name]
    if entry.load().schema == "profile":
        view = stacks.view(output, flamegraph, click.get_current_context().obj)
    elif output == "folded" or flamegraph:
        raise UsageError(f"{name} counts no stacks: -o folded and --flamegraph are for cpu and offcpu")
    else:
        view = histogram.view(output)
    if cluster:
        if pid is not None or uid is not None or comm:
            raise UsageError("what is published is by workload: --pid, --uid and --comm do not go with --cluster")
        where = kafka_command.find(config, kafka, topic_prefix)
        wanted = Filters(namespace, pod, container, service, node=node)
        counting.cluster(entry, where, wanted, view, interval, timeout)
        return
    here_only(node)
    in_kernel = Wanted(pid, uid, comm)
    counting.here(entry, in_kernel, Filters(namespace, pod, container, service), view, interval, timeout)
