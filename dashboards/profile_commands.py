"""``perfstream profile``: what the time is spent on, from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dashboards import reading, selection, show
from dashboards.compare_command import compare
from dashboards.export.command import FORMATS
from dashboards.selection import Selection
from dashboards.store import Store, connect
from streams.schema.errors import PerfstreamError
from streams.schema.messages import IDENTITY

F = Callable[..., Any]
BY = ("function", "file", "line", "service", *(label for label in IDENTITY if label != "service"))


type_option = click.option(
    "--type", "kind", default="cpu", show_default=True, help="Profile type (see 'profile types')."
)  # fmt: skip
_SELECTION = (
    click.argument("matcher", required=False, default=""),
    click.option("--service", help="Service."),
    click.option("--version", help="Version of the service."),
    click.option("--namespace", help="Namespace."),
    click.option("--node", help="Node."),
    click.option("--since", default="", help="How far back, e.g. 90s, 15m, 6h, 2d  [default: 15m]."),
    click.option("--from", "start", default="", help="Start: ISO 8601 (UTC), Unix seconds, or now-2h."),
    click.option("--to", "end", default="", help="End, likewise  [default: now]."),
    click.option("--dsn", default="", help="ClickHouse, e.g. http://HOST:8123/perfstream [the local stack's]."),
)


def selecting(command: F) -> F:
    """Add the options that every reading command has: of whom, when, from where."""
    for option in reversed(_SELECTION):
        command = option(command)
    return command


def printing(command: F) -> F:
    """Add ``--format``."""
    form = click.Choice(["table", "json"])
    return click.option("--format", "form", type=form, default="table", show_default=True)(command)


rows_option = click.option("-n", "n", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Rows.")


def prepare(given: dict[str, Any], kind: str = "", more: tuple[str, ...] = ()) -> tuple[Store, Selection]:
    """Return the store and the selection of a command that ``selecting`` made; ``kind`` is the profile type.

    ``more`` are the labels that its matcher may name beside those of the identity.
    """
    labels = {name: given[name] for name in ("service", "version", "namespace", "node")}
    times = {name: given[name] for name in ("since", "start", "end")}
    wanted = selection.make(given["matcher"], type=kind, more=more, **times, **labels)
    return connect(given["dsn"]), wanted


def finish(form: str, rows: list[dict[str, Any]], empty: Callable[[], str], table: Callable[[], None]) -> None:
    """Write the rows; an empty answer says in one line on standard error what was asked and what exists."""
    if form == "json":
        show.write_json(rows)
    elif rows:
        table()
    if not rows:
        click.echo(empty(), err=True)


@click.group()
def profile() -> None:
    """Ask what the time is spent on.

    A MATCHER selects by identity, e.g. 'shop{version="v1.0", node=~"a.*", pod!="x"}'. Times that begin more than 30
    days ago are answered from whole hours, in which nodes and pods are not kept apart.
    """


@profile.command()
@selecting
@click.option("--type", "kind", default="", help="Profile type  [default: all].")
@printing
def types(form: str, kind: str, **given: Any) -> None:  # noqa: ANN401 - the options of ``selecting``
    """List the profile types that were recorded."""
    store, wanted = prepare(given, kind)
    with show.waiting("reading the samples"):
        rows = reading.types(store, wanted)
    finish(form, rows, lambda: nothing(store, wanted), lambda: show.types(rows))


@profile.command()
@selecting
@type_option
@rows_option
@click.option("--by", type=click.Choice(BY), default="function", show_default=True, help="Code, or a label.")
@printing
def top(form: str, kind: str, n: int, by: str, **given: Any) -> None:  # noqa: ANN401
    """Show where the time goes: self is in the function itself, total with what it calls."""
    store, wanted = prepare(given, kind)
    with show.waiting("reading the samples"):
        rows = reading.top(store, wanted, n, by)
    finish(form, rows, lambda: nothing(store, wanted), lambda: show.top(rows, by))


@profile.command()
@selecting
@type_option
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), default=Path("flamegraph.html"), show_default=True,
    help="The file to write.",
)  # fmt: skip
@click.option("--title", default="", help="Title of the page.")
def flamegraph(output: Path, kind: str, title: str, **given: Any) -> None:  # noqa: ANN401
    """Write a flame graph: one HTML file that needs no network."""
    from dashboards.flamegraph import page

    store, wanted = prepare(given, kind)
    with show.waiting("reading the samples"):
        graph = reading.flamegraph(store, wanted)
    if not graph.total:
        raise PerfstreamError(nothing(store, wanted))
    size = page.write(output, graph, title or _title(wanted), str(wanted))
    total = show.human(graph.total, graph.unit)
    click.echo(f"{output}: {len(graph.level)} nodes, {total}, {size / 1024:.0f} KiB")


@profile.command("list")
@click.argument("function")
@selecting
@type_option
@click.option(
    "--source", "directory", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the source is: its text stands beside the figures.",
)  # fmt: skip
@click.option(
    "--context", type=click.IntRange(0, 1000), default=3, show_default=True,
    help="Lines of source around those with figures.",
)  # fmt: skip
@printing
def list_(function: str, form: str, kind: str, directory: Path | None, context: int, **given: Any) -> None:  # noqa: ANN401
    """Show a FUNCTION line by line: self and total of each. A part of its name will do when no other has it."""
    from dashboards import list_command, listing

    store, wanted = prepare(given, kind)
    with show.waiting("reading the samples"):
        found = listing.read(store, wanted, function)
    if found is None:
        if not reading.whole(store, wanted)[0]:
            raise PerfstreamError(nothing(store, wanted))
        raise PerfstreamError(f"no function has '{function}' in its name in {wanted}; see 'perfstream profile top'")
    if form == "json":
        if directory is not None:
            list_command.with_source(found, directory)
        show.write_json(found.rows)
    else:
        list_command.write(found, directory, context)


@profile.command()
@selecting
@type_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="pprof", show_default=True)
@click.option("-o", "output", default="-", show_default=True, help="The file to write; - is standard output.")
def export(output: str, form: str, kind: str, **given: Any) -> None:  # noqa: ANN401
    """Write a selection for another program, e.g. --format pprof -o cpu.pb.gz for 'go tool pprof'."""
    from dashboards.export import command, pprof, stacks, text

    store, wanted = prepare(given, kind)
    with show.waiting("reading the samples"):
        found = stacks.read(store, wanted)
    if not len(found.value):
        raise PerfstreamError(nothing(store, wanted))
    encode = {"pprof": pprof.encode, "folded": text.folded, "speedscope": text.speedscope}[form]
    command.write(encode(found), output, form)


@profile.command()
@selecting
@click.option("--probe", help="Probe: runqlat, blockio, syscall, tcpconnect, ...")
@click.option("--operation", help="Operation of the probe: a system call, a device, ...")
@rows_option
@printing
def latency(form: str, n: int, probe: str | None, operation: str | None, **given: Any) -> None:  # noqa: ANN401
    """Show latencies by probe, operation and service, from merged histograms (quantiles within 3.2 %).

    Whole windows are counted: those that start in the time range.
    """
    store, wanted = prepare(given, more=("probe", "operation"))
    wanted = wanted.also(probe=probe, operation=operation)
    with show.waiting("reading the latency windows"):
        rows = reading.latency(store, wanted, n)
    finish(form, rows, lambda: f"no latencies for {wanted}; see 'perfstream profile latency --since 1d'",
           lambda: show.latency(rows))  # fmt: skip


@profile.command()
@selecting
@click.option("--kind", help="Kind of event: exec, exit, tcpconnect, tcpaccept, oomkill.")
@rows_option
@printing
def events(form: str, n: int, kind: str | None, **given: Any) -> None:  # noqa: ANN401
    """Count node events (exec, connect, OOM kill, ...) by kind and service; tables (top_tcp, ...) with --kind only."""
    store, wanted = prepare(given, more=("kind",))
    wanted = wanted.also(kind=kind)
    with show.waiting("reading the events"):
        rows = reading.events(store, wanted, n)
    finish(form, rows, lambda: f"no events for {wanted}; see 'perfstream profile events --since 1d'",
           lambda: show.events(rows))  # fmt: skip


profile.add_command(compare)


def _title(wanted: Selection) -> str:
    service = next((m.value for m in wanted.matches if m.label == "service"), "every service")
    version = next((f" {m.value}" for m in wanted.matches if m.label == "version"), "")
    return f"{service}{version} · {wanted.type}"


def nothing(store: Store, wanted: Selection) -> str:
    """Return the line that says that nothing was found, and what there is."""
    return f"nothing recorded for {wanted}; {reading.what_exists(store, wanted)}"
