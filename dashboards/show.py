"""How data look on a terminal: tables that fit it, and units for people."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

_TIMES = (("h", 3600e9), ("min", 60e9), ("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COUNTS = ("", " k", " M", " G", " T")


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


def write_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a list of objects to standard output."""
    click.echo(json.dumps(rows, indent=1, default=_plain, ensure_ascii=False))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).isoformat()
    return str(value)


def write_table(rows: Sequence[Mapping[str, str]], right: Sequence[str] = ()) -> None:
    """Write a table; the widest left-aligned column is cut with an ellipsis when the terminal is too narrow."""
    if not rows:
        return
    columns = list(rows[0])
    cells = [[_clean(str(row[c])) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    room = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 10_000
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
        click.secho(text, bold=number == 0)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _clean(text: str) -> str:
    # A name from a profiled process must not move the cursor of whoever reads it.
    return "".join(c if c.isprintable() else "�" for c in text)
