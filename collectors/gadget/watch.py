"""``perfstream gadget top`` and ``snapshot``: who does most in each interval, and what there is now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collectors.gadget.options import SHOWN_ROWS, here_only, of_the_cluster
from runtime import kafka_command
from runtime.stopping import until_asked
from streams.schema.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from collectors.gadget.filters import Filters
    from collectors.wanted import Wanted

F = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Selected:
    """Which processes are wanted, as the options say."""

    namespace: str
    pod: str
    container: str
    service: str
    pid: int | None
    comm: str
    uid: int | None

    def filters(self, node: str = "") -> Filters:
        """Return it for rows, of this node where it is given."""
        from collectors.gadget.filters import Filters

        return Filters(self.namespace, self.pod, self.container, self.service, self.comm, self.pid, self.uid, node=node)

    def in_kernel(self) -> Wanted:
        """Return the part that the kernel can look at."""
        from collectors.wanted import Wanted

        return Wanted(self.pid, self.uid, self.comm)


def selecting(command: F) -> F:
    """Give a command the options of ``Selected``, as one argument ``selected``."""

    def called(**given: Any) -> Any:  # noqa: ANN401 - a command's options
        names = Selected.__dataclass_fields__
        own = {name: given.pop(name) for name in names}
        return command(selected=Selected(**own), **given)

    called.__doc__, called.__name__ = command.__doc__, command.__name__
    # Where click keeps the options that were given before this one.
    called.__dict__.update(command.__dict__)
    wrapped: F = called
    for option in reversed(
        (
            click.option("-n", "--namespace", default="", help="Only this Kubernetes namespace."),
            click.option("--pod", default="", help="Only this pod."),
            click.option("--container", default="", help="Only this container."),
            click.option("--service", default="", help="Only this service."),
            click.option("--pid", type=int, help="Only this process."),
            click.option("--comm", default="", help="Only commands of this name."),
            click.option("--uid", type=int, help="Only this user."),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


def gadget_names(verb: str) -> list[str]:
    """Return the gadgets of a verb."""
    from collectors.catalogue import of_verb

    return list(of_verb(verb))


_OUTPUT = click.option("-o", "output", default="columns", show_default=True, help="columns, columns=a,b,... or json.")
_SORT = click.option("--sort", metavar="COLUMN", help="Sort by it, greatest first; a,b: by the sum.")


@click.command()
@click.argument("name", type=click.Choice(gadget_names("top")))
@selecting
@of_the_cluster
@_SORT
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    help="Seconds of one table; with --cluster, from one look at the nodes' latest intervals to the next.",
)
@click.option("--rows", type=click.IntRange(1), help=f"How many rows [{SHOWN_ROWS}, or what fits; json: all].")
@_OUTPUT
@click.option("--timeout", type=click.FloatRange(0), default=0.0, help="End after so many seconds [never].")
def top(
    name: str, selected: Selected, sort: str | None, interval: float, rows: int | None, output: str, timeout: float,
    cluster: bool, node: str, config: Path | None, kafka: str | None, topic_prefix: str | None,
) -> None:  # fmt: skip
    """Show who did most in each interval, until Ctrl-C or --timeout; then what was lost.

    With --cluster: of every node whose agent.collectors names it, as top_NAME. A node publishes its 100 first rows once
    an interval, and what the others come to as (other); one that is silent for three intervals is left out.
    """
    from collectors.catalogue import Shared, of_verb
    from collectors.gadget.table import PLACE, Screen, choose, names, ordered, placed, show_json
    from collectors.kubernetes.live import workloads
    from collectors.settings import AgentSettings
    from collectors.symbols import Symbolizer

    entry = of_verb("top")[name]
    kind = entry.load()
    known = (*PLACE, *kind.columns.names)
    columns = choose(output, known, ("node", *kind.shown) if cluster else kind.shown)
    by = names(sort or kind.sort, known)
    if cluster:
        from collectors.gadget import watch_cluster

        where, wanted = kafka_command.find(config, kafka, topic_prefix), selected.filters(node)
        shown = watch_cluster.Shown(wanted, by, columns, rows)
        watch_cluster.top(entry, kind.columns, where, shown, interval, timeout)
        return
    here_only(node)
    settings, wanted = AgentSettings(), selected.filters()
    gadget = kind.make(Shared(workloads(), Symbolizer(), settings.agent), selected.in_kernel())
    screen = Screen()
    stop = until_asked()
    try:
        gadget.start()
        began = before = time.monotonic()
        click.echo(f"watching {name}; Ctrl-C ends it", err=True)
        intervals = seen = lost = 0
        while not stop.is_set() and not (timeout and before - began >= timeout):
            due = began + (intervals + 1) * interval
            stop.wait(max(0.0, min(due, began + timeout if timeout else due) - time.monotonic()))
            now = time.monotonic()
            seconds, before = now - before, now
            at = placed(gadget.collect(seconds), time.time_ns(), round(seconds * 1e9), settings.cluster, settings.node)
            found, missing = ordered(wanted.apply(at), by), gadget.lost()
            intervals, seen, lost = intervals + 1, seen + found.num_rows, lost + missing
            if columns is None:
                show_json(found.slice(0, rows))
                continue
            title = f"{datetime.now(UTC):%H:%M:%S}  {name}, {seconds:.1f} s: {found.num_rows:,} rows, {missing:,} lost"
            screen.table(title, found, columns, rows)
        click.echo(f"{intervals:,} intervals, {seen:,} rows, {lost:,} lost", err=True)
    finally:
        gadget.close()


@click.command()
@click.argument("name", type=click.Choice(gadget_names("snapshot")))
@selecting
@of_the_cluster
@_SORT
@_OUTPUT
@click.option("--arguments", is_flag=True, help="With the arguments of processes, which may hold secrets.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=15.0,
    show_default=True,
    help="With --cluster: wait at most so many seconds where no node has published yet.",
)
def snapshot(
    name: str, selected: Selected, sort: str | None, output: str, arguments: bool, timeout: float,
    cluster: bool, node: str, config: Path | None, kafka: str | None, topic_prefix: str | None,
) -> None:  # fmt: skip
    """Show the processes or sockets that there are now.

    With --cluster: the latest, of the last 30 seconds, of every node whose agent.collectors names it, as snapshot_NAME.
    A node publishes 1000 rows once an interval, and what the others come to as (other).
    """
    from collectors.catalogue import of_verb
    from collectors.gadget.table import PLACE, choose, names, placed
    from collectors.kubernetes.live import workloads
    from collectors.settings import AgentSettings

    entry = of_verb("snapshot")[name]
    kind = entry.load()
    if arguments and cluster:
        raise UsageError("--arguments is for this node: agents do not collect arguments")
    own = kind.columns
    if cluster and "arguments" in own.names:
        own = own.remove(own.get_field_index("arguments"))
    known = (*(place for place in PLACE if place != "interval_ns"), *own.names)
    shown = (*kind.shown, *(("arguments",) if arguments and "arguments" in known else ()))
    columns = choose(output, known, ("node", *shown) if cluster else shown)
    by = names(sort, known) if sort else None
    if cluster:
        from collectors.gadget import watch_cluster

        where, wanted = kafka_command.find(config, kafka, topic_prefix), selected.filters(node)
        watch_cluster.snapshot(entry, own, where, watch_cluster.Shown(wanted, by, columns), timeout)
        return
    here_only(node)
    settings = AgentSettings()
    asked = arguments or "arguments" in (*(columns or ()), *(by or ()))
    taken = placed(kind(workloads(), arguments=asked).take(), time.time_ns(), None, settings.cluster, settings.node)
    found = selected.filters().apply(taken)
    show(found, by, columns)
    if columns is not None:
        click.echo(f"{found.num_rows:,} rows", err=True)


@click.command()
@click.argument("gadgets", nargs=-1, metavar="[GADGET]...")
@_SORT
@_OUTPUT
@click.option("--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds to measure.")
def cost(gadgets: tuple[str, ...], sort: str | None, output: str, timeout: float) -> None:
    """Run gadgets (those that are always on, or these) together, and show what each of them costs.

    In percent of one core: programs in the kernel, and the user space part. Names are those of 'gadget list', of top
    with top_ before them.
    """
    from collectors.catalogue import Shared, measurable
    from collectors.gadget import cost as costs
    from collectors.gadget.table import choose, names
    from collectors.kubernetes.live import workloads
    from collectors.settings import AgentOptions
    from collectors.symbols import Symbolizer

    known = costs.COLUMNS.names
    columns = choose(output, known, costs.SHOWN)
    by = names(sort, known) if sort else None
    chosen = measurable(gadgets)
    click.echo(f"measuring {len(chosen)} gadgets for {timeout:g} s", err=True)
    found = costs.measure(chosen, Shared(workloads(), Symbolizer(), AgentOptions()), timeout, until_asked())
    show(found, by, columns)


def show(found: pa.RecordBatch, by: Sequence[str] | None, columns: Sequence[str] | None) -> None:
    """Print one table, or JSON where no columns are chosen."""
    from collectors.gadget.table import Screen, lines, ordered, show_json

    if by:
        found = ordered(found, by)
    if columns is None:
        show_json(found)
        return
    for at, line in enumerate(lines(found, columns, Screen().room()[0])):
        click.secho(line, bold=at == 0)
