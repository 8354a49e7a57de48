"""``perfstream profile coverage``: how much of what was sampled can be read, by binary."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from dashboards import coverage as covered
from dashboards import profile_commands, show


@click.command()
@profile_commands.selecting
@profile_commands.type_option
@profile_commands.rows_option
@profile_commands.printing
def coverage(form: str, kind: str, n: int, **given: Any) -> None:  # noqa: ANN401 - the options of ``selecting``
    """Show by binary which share of the samples is fully unwound and named.

    A sample counts for the binary that ran. It is unwound when its stack reaches the place where its thread began, and
    named when no frame of it lacks a name. Frame pointers (-fno-omit-frame-pointer) unwind; a symbol table, a file
    under /usr/lib/debug or a JIT's perf-PID.map names. For the node's own types: cpu and offcpu.
    """
    store, wanted = profile_commands.prepare(given, kind)
    with show.waiting("reading the samples"):
        rows = covered.read(store, wanted)
    profile_commands.finish(form, rows[:n], lambda: profile_commands.nothing(store, wanted), lambda: write(rows, n))


RIGHT = ("value", "%", "unwound", "named", "both")
LEAST = 20


def write(rows: Sequence[Mapping[str, Any]], n: int) -> None:
    """Write the first ``n`` rows of ``coverage.read``, and how much of all samples is whole."""
    lines = [
        {
            "binary": row["binary"],
            "value": show.human(row["value"], row["unit"]),
            "%": f"{row['share']:.1%}",
            "unwound": f"{row['unwound_share']:.1%}",
            "named": f"{row['named_share']:.1%}",
            "both": f"{row['complete_share']:.1%}",
            "note": row["note"],
        }
        for row in rows[:n]
    ]
    if sys.stdout.isatty():
        lines = fitted(lines, shutil.get_terminal_size((100, 24)).columns)
    show.write_table(lines, right=RIGHT)
    shown = sum(row["share"] for row in rows[:n])
    more = f"; these {n} of {len(rows)} binaries hold {shown:.1%} of all" if len(rows) > n else ""
    click.secho(f"{covered.complete(rows):.1%} of all is unwound and named{more}", dim=True)


def fitted(lines: Sequence[Mapping[str, str]], columns: int) -> list[dict[str, str]]:
    """Return the lines with long paths cut at their beginning, whose end is what tells them apart."""
    names = [name for name in lines[0] if name != "binary"] if lines else []
    others = sum(2 + max(len(text) for text in (name, *(line[name] for line in lines))) for name in names)
    room = max(LEAST, columns - others)
    return [
        {**line, "binary": line["binary"] if len(line["binary"]) <= room else f"…{line['binary'][1 - room :]}"}
        for line in lines
    ]
