"""How gadget rows look: columns that fit the terminal, or one JSON object a line."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import pyarrow as pa

from streams.schema.errors import UsageError

EVENT_COLUMNS = ("time", "service", "comm", "pid", "ppid", "uid", "result", "latency", "detail")
_WIDTHS = {
    "time": 12, "node": 16, "cluster": 12,
    "namespace": 16, "pod": 24, "container": 12, "service": 20, "version": 12, "comm": 16, "pid": 7,
    "ppid": 7, "uid": 6, "result": 13, "latency": 9, "kind": 10,
}  # fmt: skip
_RIGHT = frozenset({"pid", "ppid", "uid", "latency"})


def plain(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as objects for JSON: the contract's columns under their names, times as RFC 3339 text."""
    objects: list[dict[str, Any]] = rows.to_pylist(maps_as_pydicts="lossy")
    for each in objects:
        each["time"] = rfc3339(each["time_ns"])
    return objects


def short(ns: float) -> str:
    """Return a duration with three digits and its unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g}{unit}" if ns < 999.5 * size else f"{ns / size:.0f}{unit}"
    return f"{ns:.0f}ns"


class Printer:
    """Prints rows of events as they come: ``form`` is ``columns``, ``columns=a,b,...`` or ``json``.

    ``nodes`` shows which node a row is of.
    """

    def __init__(self, form: str, known: Sequence[str], *, nodes: bool = False) -> None:
        self._json = form == "json"
        self._columns: tuple[str, ...] = ("time", "node", *EVENT_COLUMNS[1:]) if nodes else EVENT_COLUMNS
        self._headed = False
        if form.startswith("columns="):
            allowed = {*known, *EVENT_COLUMNS}
            self._columns = tuple(name.strip() for name in form.removeprefix("columns=").split(","))
            wrong = [name for name in self._columns if name not in allowed]
            if wrong:
                raise UsageError(f"there is no column {wrong[0]!r}; there are: {', '.join(sorted(allowed))}")
        elif form not in ("columns", "json"):
            raise UsageError(f"-o {form!r} is not known; use columns, columns=a,b,... or json")

    def rows(self, rows: pa.RecordBatch) -> None:
        """Print rows, and the heading before the first."""
        if self._json:
            for each in plain(rows):
                sys.stdout.write(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n")
        else:
            self.heading()
            for each in rows.to_pylist(maps_as_pydicts="lossy"):
                click.echo(self._line({name: _cell(name, each) for name in self._columns}))
        sys.stdout.flush()

    def heading(self) -> None:
        """Print the heading once, so that a quiet gadget shows that it runs; of JSON, say so on standard error."""
        if self._headed:
            return
        self._headed = True
        if self._json:
            click.echo("tracing; Ctrl-C ends it", err=True)
        else:
            click.secho(self._line({name: name.upper() for name in self._columns}), bold=True)

    def _line(self, cells: Mapping[str, str]) -> str:
        room = shutil.get_terminal_size((0, 0)).columns if sys.stdout.isatty() else 0
        last = self._columns[-1]
        parts = []
        for name in self._columns:
            if name == last:
                continue
            width = _WIDTHS.get(name, 20)
            text = cells[name] if len(cells[name]) <= width else cells[name][: width - 1] + "…"
            parts.append(text.rjust(width) if name in _RIGHT else text.ljust(width))
        before = "  ".join(parts)
        tail = cells[last]
        if room and (left := room - len(before) - 2) >= 8 and len(tail) > left:
            tail = tail[: left - 1] + "…"
        return f"{before}  {tail}".rstrip()


def _cell(name: str, row: Mapping[str, Any]) -> str:
    if name == "time":
        return rfc3339(row["time_ns"])[11:23]
    if name == "latency":
        return short(row["latency_ns"])
    if name == "result":
        return _result(row)
    if name == "attributes":
        return " ".join(f"{key}={value}" for key, value in row["attributes"].items())
    # A name that a process chose must not move the cursor of whoever reads it.
    return "".join(c if c.isprintable() else "�" for c in str(row.get(name, "")))


def _result(row: Mapping[str, Any]) -> str:
    number = row["result"]
    if row["kind"] == "exit":
        return str(row["detail"])
    if row["kind"] == "dns" and number >= 0:
        return str(row["attributes"]["rcode"])
    return errno.errorcode.get(-number, str(number)) if number < 0 else str(number)


def rfc3339(ns: int) -> str:
    """Return nanoseconds since the epoch as text, UTC."""
    whole = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09d}Z"
