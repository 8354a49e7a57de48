"""``perfstream profile``: what the time is spent on, from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dashboards import reading, selection, show
from dashboards.selection import Selection
from dashboards.store import Store, connect
from streams.schema.errors import PerfstreamError

F = Callable[..., Any]


def selecting(command: F) -> F:
    """Add the options that every reading command has: what, when, where from, in which form."""
    for option in reversed(
        (
            click.argument("matcher", required=False, default=""),
            click.option(
                "--type", "kind", default="cpu", show_default=True, help="Profile type (see 'profile types')."
            ),
            click.option("--service", help="Service."),
            click.option("--version", help="Version of the service."),
            click.option("--namespace", help="Namespace."),
            click.option("--node", help="Node."),
            click.option("--since", default="", help="How far back, e.g. 90s, 15m, 6h, 2d  [default: 15m]."),
            click.option("--from", "start", default="", help="Start: ISO 8601 (UTC), Unix seconds, or now-2h."),
            click.option("--to", "end", default="", help="End, likewise  [default: now]."),
            click.option("--dsn", default="", help="ClickHouse, e.g. http://HOST:8123/perfstream [the local stack's]."),
        )
    ):
        command = option(command)
    return command


def printing(command: F) -> F:
    """Add ``--format``."""
    form = click.Choice(["table", "json"])
    return click.option("--format", "form", type=form, default="table", show_default=True)(command)


rows_option = click.option("-n", "n", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Rows.")


def prepare(given: dict[str, Any]) -> tuple[Store, Selection]:
    """Return the store and the selection of a command that ``selecting`` made."""
    wanted = selection.make(
        given["matcher"],
        type=given["kind"],
        since=given["since"],
        start=given["start"],
        end=given["end"],
        service=given["service"],
        version=given["version"],
        namespace=given["namespace"],
        node=given["node"],
    )
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

    A MATCHER selects by identity, e.g. 'shop{version="v1.0", node=~"a.*", pod!="x"}'.
    """


@profile.command()
@selecting
@printing
def types(form: str, **given: Any) -> None:  # noqa: ANN401 - the options of ``selecting``
    """List the profile types that were recorded."""
    store, wanted = prepare(given)
    rows = reading.types(store, wanted)

    def table() -> None:
        show.write_table(
            [
                {
                    "type": row["type"],
                    "unit": row["unit"],
                    "services": str(row["services"]),
                    "nodes": str(row["nodes"]),
                    "sum": show.human(row["value"], row["unit"]),
                    "last": f"{row['last']:%Y-%m-%d %H:%M:%S}",
                }
                for row in rows
            ],
            right=("services", "nodes", "sum"),
        )

    finish(form, rows, lambda: _nothing(store, wanted), table)


@profile.command()
@selecting
@rows_option
@click.option("--by", type=click.Choice(["function", "file", "line", "service"]), default="function", show_default=True)
@printing
def top(form: str, n: int, by: str, **given: Any) -> None:  # noqa: ANN401
    """Show where the time goes: self is in the function itself, total with what it calls."""
    store, wanted = prepare(given)
    rows = reading.top(store, wanted, n, by)

    def table() -> None:
        names = [by] if by != "service" else ["service", "version"]
        unit = rows[0]["unit"]
        show.write_table(
            [
                {name: row[name] for name in names}
                | {
                    "self": show.human(row["self"], unit),
                    "self %": f"{row['self_share']:.1%}",
                    "total": show.human(row["total"], unit),
                    "total %": f"{row['total_share']:.1%}",
                }
                for row in rows
            ],
            right=("self", "self %", "total", "total %"),
        )

    finish(form, rows, lambda: _nothing(store, wanted), table)


@profile.command()
@selecting
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), default=Path("flamegraph.html"), show_default=True,
    help="The file to write.",
)  # fmt: skip
@click.option("--title", default="", help="Title of the page.")
def flamegraph(output: Path, title: str, **given: Any) -> None:  # noqa: ANN401
    """Write a flame graph: one HTML file that needs no network."""
    from dashboards.flamegraph import page

    store, wanted = prepare(given)
    graph = reading.flamegraph(store, wanted)
    if not graph.total:
        raise PerfstreamError(_nothing(store, wanted))
    html = page.render(graph, title or _title(wanted), str(wanted))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(html, encoding="utf-8")
    except OSError as error:
        raise PerfstreamError(f"cannot write {output}: {error.strerror}") from error
    total = show.human(graph.total, graph.unit)
    click.echo(f"{output}: {len(graph.level)} nodes, {total}, {len(html) / 1024:.0f} KiB")


@profile.command()
@selecting
@rows_option
@printing
def latency(form: str, n: int, **given: Any) -> None:  # noqa: ANN401
    """Show latencies by probe, operation and service, from merged histograms (quantiles within 3.2 %)."""
    store, wanted = prepare(given)
    rows = reading.latency(store, wanted, n)
    times = ("p50_ns", "p90_ns", "p99_ns", "max_ns")

    def table() -> None:
        show.write_table(
            [
                {"probe": row["probe"], "operation": row["operation"], "service": row["service"]}
                | {"count": f"{row['count']:,}"}
                | {name.removesuffix("_ns"): show.human(row[name], "nanoseconds") for name in times}
                for row in rows
            ],
            right=("count", "p50", "p90", "p99", "max"),
        )

    finish(form, rows, lambda: f"no latency windows for {wanted}", table)


@profile.command()
@selecting
@rows_option
@printing
def events(form: str, n: int, **given: Any) -> None:  # noqa: ANN401
    """Count node events (exec, connect, OOM kill, ...) by kind and service."""
    store, wanted = prepare(given)
    rows = reading.events(store, wanted, n)

    def table() -> None:
        show.write_table(
            [
                {"kind": row["kind"], "service": row["service"], "count": f"{row['count']:,}"}
                | {"failed": f"{row['failed']:,}", "last": f"{row['last']:%Y-%m-%d %H:%M:%S}"}
                for row in rows
            ],
            right=("count", "failed"),
        )

    finish(form, rows, lambda: f"no events for {wanted}", table)


def _title(wanted: Selection) -> str:
    service = next((m.value for m in wanted.matches if m.label == "service"), "every service")
    version = next((f" {m.value}" for m in wanted.matches if m.label == "version"), "")
    return f"{service}{version} · {wanted.type}"


def _nothing(store: Store, wanted: Selection) -> str:
    return f"nothing recorded for {wanted}; {reading.what_exists(store, wanted)}"
