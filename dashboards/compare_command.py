"""``perfstream profile compare``: which functions take a greater or smaller share than before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dashboards import selection, show
from dashboards.selection import Selection
from dashboards.store import Store, connect
from streams.schema.errors import PerfstreamError, UsageError

F = Callable[..., Any]
SIDES = ("baseline", "comparison")


def _options(command: F) -> F:
    for side in reversed(SIDES):
        for end, what in (("to", "End"), ("from", "Start"), ("since", "How far back")):
            command = click.option(f"--{side}-{end}", default="", help=f"{what} of the {side}, where it differs.")(
                command
            )
        command = click.option(
            f"--{side}-load", type=click.FloatRange(0, min_open=True),
            help=f"How much work (requests, ...) the {side} did.",
        )(command)  # fmt: skip
        command = click.option(f"--{side}", required=True, help=f"Matcher of the {side}.")(command)
    return command


@click.command()
@_options
@click.option("--type", "kind", default="cpu", show_default=True, help="Profile type (see 'profile types').")
@click.option("--since", default="", help="How far back, of both sides  [default: 15m].")
@click.option("--from", "start", default="", help="Start of both: ISO 8601 (UTC), Unix seconds, or now-2h.")
@click.option("--to", "end", default="", help="End of both, likewise  [default: now].")
@click.option("--load", help="Count this as load: PROBE or PROBE:OPERATION of 'profile latency', e.g. syscall:accept4.")
@click.option(
    "--fdr", type=click.FloatRange(0.0001, 0.5), default=0.05, show_default=True,
    help="False discovery rate: the share of findings that may be chance.",
)  # fmt: skip
@click.option(
    "--min-change", type=click.FloatRange(0, 100), default=0.1, show_default=True,
    help="Percentage points below which a difference is no finding.",
)  # fmt: skip
@click.option("--fail-on-regression", is_flag=True, help="Exit with 1 when a function regressed or is new.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a differential flame graph to this file."
)
@click.option("-n", "n", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Rows.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--dsn", default="", help="ClickHouse, e.g. http://HOST:8123/perfstream [the local stack's].")
def compare(
    *, form: str, n: int, dsn: str, kind: str, load: str | None, fdr: float, min_change: float,
    fail_on_regression: bool, html: Path | None, **given: Any,  # noqa: ANN401 - the options of both sides
) -> None:  # fmt: skip
    """Compare where the time goes, e.g. --baseline 'shop{version="v1.0"}' --comparison 'shop{version="v1.1"}'.

    Shares are of the side's whole, so a busier day is no regression; what others gain when one function shrinks shows
    as well. With a load the cost of a unit of it stands beside them.
    """
    from dashboards import comparing, reading

    store = connect(dsn)
    now = datetime.now(UTC)
    sides = _side(given, "baseline", kind, now), _side(given, "comparison", kind, now)
    with show.waiting("reading the samples"):
        loads = given["baseline_load"], given["comparison_load"]
        if load:
            probe, _, operation = load.partition(":")
            counted = comparing.load(store, sides, probe, operation)
            loads = loads[0] or counted[0], loads[1] or counted[1]
        found = comparing.compare(store, sides, rate=fdr, min_points=min_change, loads=loads if all(loads) else None)
    for side, name in zip(sides, SIDES, strict=True):
        if not any(row[f"{name}_total"] for row in found.rows):
            raise PerfstreamError(f"nothing recorded for {side}; {reading.what_exists(store, side)}")
    if (load or any(loads)) and not all(loads):
        click.echo("the load is known for one side only or for none, so no cost is shown", err=True)
    for note in found.notes:
        click.echo(note, err=True)
    if form == "json":
        show.write_json(found.rows[:n])
    else:
        show.comparison(found.rows, n)
    if html is not None:
        _write(html, store, sides)
    if fail_on_regression and found.regressed:
        raise SystemExit(1)


def _side(given: dict[str, Any], name: str, kind: str, now: datetime) -> Selection:
    own = {key: given[f"{name}_{option}"] for key, option in (("since", "since"), ("start", "from"), ("end", "to"))}
    times = own if any(own.values()) else {key: given[key] for key in own}
    try:
        return selection.make(given[name], type=kind, now=now, **times)
    except UsageError as error:
        raise UsageError(f"--{name}: {error}") from error


def _write(path: Path, store: Store, sides: tuple[Selection, Selection]) -> None:
    from dashboards import reading
    from dashboards.flamegraph import page
    from dashboards.flamegraph.difference import difference

    with show.waiting("drawing the difference"):
        graph = difference(*(reading.flamegraph(store, side) for side in sides))
    size = page.write(path, graph, f"what changed · {sides[1].type}", f"{sides[0]} → {sides[1]}")
    click.echo(f"{path}: {len(graph.level)} nodes, {size / 1024:.0f} KiB", err=True)
