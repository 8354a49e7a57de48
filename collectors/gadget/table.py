"""Rows as a table that fits the terminal, or as one JSON object a line. A column's unit stands in its name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np
import pyarrow as pa

from collectors.gadget.options import SHOWN_ROWS
from collectors.gadget.output import rfc3339, short
from streams.schema.errors import UsageError

_PLAIN = frozenset({"pid", "ppid", "uid", "id", "inode", "port"})  # numbers that count nothing
_UNITS = ("_ns", "_bytes", "_percent")
_GAP = 2
PLACE = {"time": pa.string(), "interval_ns": pa.uint64(), "cluster": pa.string(), "node": pa.string()}
"""The columns that ``placed`` adds."""
_LEAST = 10


def choose(form: str, known: Sequence[str], shown: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns that ``-o`` asks for; None for JSON.

    Raises:
        UsageError: there is no such form or column.
    """
    if form == "json":
        return None
    if form == "columns":
        return tuple(shown)
    if not form.startswith("columns="):
        raise UsageError(f"-o {form!r} is not known; use columns, columns=a,b,... or json")
    return names(form.removeprefix("columns="), known)


def names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a list such as ``a,b``.

    Raises:
        UsageError: there is no such column.
    """
    wanted = tuple(name.strip() for name in text.split(","))
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no column {name!r}; there are: {', '.join(known)}")
    return wanted


def placed(rows: pa.RecordBatch, at_ns: int, interval_ns: int | None, cluster: str, node: str) -> pa.RecordBatch:
    """Return rows with when and where before the other columns: ``time``, ``interval_ns``, ``cluster``, ``node``.

    Rows of a moment have no ``interval_ns`` (None).
    """
    more: dict[str, str | int] = {"time": rfc3339(at_ns)}
    if interval_ns is not None:
        more["interval_ns"] = interval_ns
    more |= {"cluster": cluster, "node": node}
    columns = [pa.array([value] * rows.num_rows, PLACE[name]) for name, value in more.items()]
    return pa.RecordBatch.from_arrays([*columns, *rows.columns], names=[*more, *rows.schema.names])


def ordered(rows: pa.RecordBatch, by: Sequence[str]) -> pa.RecordBatch:
    """Return the rows with the greatest first: by the sum of these columns, or by text, A first."""
    kinds = [rows.schema.field(name).type for name in by]
    if any(pa.types.is_string(kind) for kind in kinds):
        return rows.take(pa.array(np.lexsort([np.array(rows.column(name).to_pylist()) for name in reversed(by)])))
    total = np.sum([rows.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in by], axis=0)
    return rows.take(pa.array(np.argsort(-total, kind="stable")))


def show_json(rows: pa.RecordBatch, **more: Any) -> None:  # noqa: ANN401 - what JSON holds
    """Print one object a line, each beginning with ``more``."""
    for each in rows.to_pylist():
        sys.stdout.write(json.dumps(more | each, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def lines(rows: pa.RecordBatch, columns: Sequence[str], room: int | None = None) -> Iterator[str]:
    """Yield the heading and the rows. ``room`` columns of a terminal are kept to; None cuts nothing."""
    right = [not pa.types.is_string(rows.schema.field(name).type) for name in columns]
    cells = [[heading(name) for name in columns]]
    cells += [[cell(name, each[name]) for name in columns] for each in rows.select(list(columns)).to_pylist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if room is not None:
        widths = _fitting(widths, right, room)
    for row in cells:
        parts = []
        for text, width, to_right in zip(row, widths, right, strict=False):
            cut = text if len(text) <= width else text[: max(0, width - 1)] + "…"
            parts.append(cut.rjust(width) if to_right else cut.ljust(width))
        line = (" " * _GAP).join(parts).rstrip()
        yield line if room is None else line[:room]


def _fitting(widths: list[int], right: Sequence[bool], room: int) -> list[int]:
    """Return widths that fit: the widest texts give way first, then the last columns; numbers are never cut."""
    widths = list(widths)
    while len(widths) > 1 and (over := sum(widths) + _GAP * (len(widths) - 1) - room) > 0:
        texts = [at for at, width in enumerate(widths) if not right[at] and width > _LEAST]
        if sum(widths[at] - _LEAST for at in texts) < over:
            widths.pop()
        else:
            widths[max(texts, key=lambda at: widths[at])] -= 1
    return widths


def heading(name: str) -> str:
    """Return a column's heading: its name without the unit, which the cells show."""
    for unit in _UNITS:
        if name.endswith(unit):
            return name.removesuffix(unit).upper() + (" %" if unit == "_percent" else "")
    return name.upper()


def cell(name: str, value: Any) -> str:  # noqa: ANN401 - whatever a column holds
    """Return how a value is shown."""
    if value is None:
        return "-"
    if isinstance(value, str):
        # A name that a process chose must not move the cursor of whoever reads it.
        return "".join(c if c.isprintable() else "�" for c in value)
    if name.endswith("_ns"):
        return short(value)
    if name.endswith("_bytes"):
        return size(value)
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:,.1f}"
    return str(value) if name in _PLAIN else f"{value:,}"


def size(count: float) -> str:
    """Return a number of bytes with three digits and its unit."""
    for unit, one in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if count >= one:
            return f"{count / one:.3g}{unit}" if count < 999.5 * one else f"{count / one:.0f}{unit}"
    return f"{count:.0f}B"


class Screen:
    """Where blocks of lines go: over one another on a terminal, else one after another."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._began = False

    def room(self) -> tuple[int | None, int | None]:
        """Return (columns, rows) of the terminal; None when there is none."""
        if not self._terminal:
            return None, None
        size = shutil.get_terminal_size()
        return size.columns, size.lines

    def table(self, title: str, rows: pa.RecordBatch, columns: Sequence[str], most: int | None) -> None:
        """Show ``most`` rows, or what fits, under a title."""
        width, height = self.room()
        most = most or (min(SHOWN_ROWS, max(1, height - 4)) if height else SHOWN_ROWS)
        self.block(title, lines(rows.slice(0, most), columns, width))

    def block(self, title: str, body: Iterator[str]) -> None:
        """Show a block: a title, a heading and rows."""
        out = []
        if self._terminal:
            out.append("\x1b[H" if self._began else "\x1b[2J\x1b[H")
        elif self._began:
            out.append("\n")
        self._began = True
        end = "\x1b[K\n" if self._terminal else "\n"
        out.append(title + end)
        for at, line in enumerate(body):
            out.append((click.style(line, bold=True) if at == 0 else line) + end)
        if self._terminal:
            out.append("\x1b[J")
        click.echo("".join(out), nl=False)
