"""How data look on a terminal: tables that fit it, and units for people."""

from __future__ import annotations

import json
import math
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

_TIMES = (("h", 3600e9), ("min", 60e9), ("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COUNTS = ("", " k", " M", " G", " T")
ALL_SHOWN = 0.9995
PATIENCE_S = 1.0


def human(value: float, unit: str) -> str:
    """Return a value with three significant digits and a unit that fits; ``unit`` as in profiles."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if unit == "nanoseconds":
        for name, size in _TIMES:
            if abs(value) >= size:
                return f"{_three(value / size)} {name}"
        return "0 ns" if not value else f"{value:g} ns"
    base, names = (1024.0, _BYTES) if unit == "bytes" else (1000.0, _COUNTS)
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    name = names[step]
    return f"{_three(value)}{' ' + name if unit == 'bytes' else name}"


def _three(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def types(rows: Sequence[Mapping[str, Any]], *, err: bool = False) -> None:
    """Write what ``reading.types`` returned as a table; all writers: to standard error with ``err``."""
    write_table(
        [
            {
                "type": row["type"],
                "unit": row["unit"],
                "services": str(row["services"]),
                "nodes": str(row["nodes"]),
                "sum": human(row["value"], row["unit"]),
                "last": f"{row['last']:%Y-%m-%d %H:%M:%S}",
            }
            for row in rows
        ],
        right=("services", "nodes", "sum"),
        err=err,
    )


def top(rows: Sequence[Mapping[str, Any]], by: str = "function", *, err: bool = False) -> None:
    """Write what ``reading.top`` returned, and how much of the whole it is."""
    names = [by] if by != "service" else ["service", "version"]
    write_table(
        [
            {name: row[name] for name in names}
            | {
                "self": human(row["self"], row["unit"]),
                "self %": f"{row['self_share']:.1%}",
                "total": human(row["total"], row["unit"]),
                "total %": f"{row['total_share']:.1%}",
            }
            for row in rows
        ],
        right=("self", "self %", "total", "total %"),
        err=err,
    )
    shown = sum(row["self_share"] for row in rows)
    if shown < ALL_SHOWN:
        click.secho(f"these {len(rows)} hold {shown:.1%} of the whole; -n shows more", dim=True, err=err)


def latency(rows: Sequence[Mapping[str, Any]], *, err: bool = False) -> None:
    """Write what ``reading.latency`` returned."""
    times = ("p50_ns", "p90_ns", "p99_ns", "max_ns")
    sampled = any(row["period"] > 1 for row in rows)
    write_table(
        [
            {"probe": row["probe"], "operation": row["operation"], "service": row["service"]}
            | {"count": f"{row['count']:,}"}
            | {name.removesuffix("_ns"): human(row[name], "nanoseconds") for name in times}
            # Only where an agent had to keep to its budget: the count is then an estimate.
            | ({"sampled": f"1/{row['period']}" if row["period"] > 1 else ""} if sampled else {})
            for row in rows
        ],
        right=("count", "p50", "p90", "p99", "max", "sampled"),
        err=err,
    )


def events(rows: Sequence[Mapping[str, Any]], *, err: bool = False) -> None:
    """Write what ``reading.events`` returned."""
    write_table(
        [
            {"kind": row["kind"], "service": row["service"], "count": f"{row['count']:,}"}
            | {"failed": f"{row['failed']:,}", "last": f"{row['last']:%Y-%m-%d %H:%M:%S}"}
            for row in rows
        ],
        right=("count", "failed"),
        err=err,
    )


WITH_P, WITH_BOTH = 100, 140
"""Columns of a terminal from which a comparison shows p, and self and total shares beside each other."""


def comparison(rows: Sequence[Mapping[str, Any]], n: int) -> None:
    """Write the first ``n`` rows of a ``comparing.Comparison``, and how many findings there are in all.

    A row's figures are of the share that its verdict is about, self where there is none; points with their 95 %.
    """
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else WITH_BOTH
    costs = any(row["baseline_self_per_unit"] is not None for row in rows)
    lines = []
    for row in rows[:n]:
        of = row["by"] or "self"
        line = {"function": row["function"]}
        if width >= WITH_BOTH:
            line |= {f"{kind} {name}": text for kind in ("self", "total") for name, text in _change(row, kind).items()}
        else:
            line |= {"of": of, **_change(row, of)}
        if costs:
            old, new = row[f"baseline_{of}_per_unit"], row[f"comparison_{of}_per_unit"]
            line["per unit"] = f"{human(old, row['unit'])} → {human(new, row['unit'])}"
        if width >= WITH_P:
            line["p"] = f"{row[of + '_p']:.2g}"
        both = width >= WITH_BOTH and row["by"] == "total"
        line["verdict"] = row["verdict"] + (" (total)" if both else "")
        lines.append(line)
    left = ("function", "of", "verdict")
    write_table(lines, right=[name for name in (lines[0] if lines else {}) if name not in left])
    found = [row["verdict"] for row in rows if row["by"]]
    summary = ", ".join(f"{found.count(word)} {word}" for word in dict.fromkeys(found))
    click.secho(f"{len(rows)} functions compared: {summary or 'no finding'}", dim=True)


def _change(row: Mapping[str, Any], kind: str) -> dict[str, str]:
    half = (row[f"{kind}_points_high"] - row[f"{kind}_points_low"]) / 2
    return {
        "before": f"{row[f'baseline_{kind}_share']:.2%}",
        "after": f"{row[f'comparison_{kind}_share']:.2%}",
        "points": f"{row[f'{kind}_points']:+.2f} ± {half:.2f}",
    }


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show on a terminal what is waited for, once it takes longer than a second."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(text)
    timer = threading.Timer(PATIENCE_S, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def write_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a list of objects to standard output."""
    click.echo(json.dumps(rows, indent=1, default=_plain, ensure_ascii=False))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).isoformat()
    return str(value)


def write_table(rows: Sequence[Mapping[str, str]], right: Sequence[str] = (), *, err: bool = False) -> None:
    """Write a table; the widest left-aligned column is cut with an ellipsis when the terminal is too narrow."""
    if not rows:
        return
    columns = list(rows[0])
    cells = [[clean(str(row[c])) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    room = shutil.get_terminal_size((100, 24)).columns if (sys.stderr if err else sys.stdout).isatty() else 10_000
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    while excess > 0:
        widest = max(range(len(columns)), key=lambda i: (columns[i] not in right, widths[i]))
        smaller = max(12, widths[widest] - excess)
        if smaller >= widths[widest]:
            break
        excess -= widths[widest] - smaller
        widths[widest] = smaller
    for number, line in enumerate([columns, *cells]):
        text = "  ".join(
            _cut(cell, width).rjust(width) if column in right else _cut(cell, width).ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        click.secho(text, bold=number == 0, err=err)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def clean(text: str) -> str:
    """Return a text that cannot move the cursor of whoever reads it: names come from profiled processes."""
    return "".join(c if c.isprintable() else "�" for c in text)
