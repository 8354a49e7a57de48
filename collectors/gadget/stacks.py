"""Profile rows for the terminal: functions by the time in them, folded stacks, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import pyarrow as pa

from collectors.gadget.output import rfc3339
from collectors.gadget.table import Screen, lines
from collectors.gadget.view import View
from streams.schema.errors import PerfstreamError, UsageError
from streams.schema.messages import WORKLOAD
from streams.schema.stack_columns import StackColumns
from streams.schema.stacks import split

Stacks = Mapping[tuple[str, ...], int]
"""Function names, root first: their value in nanoseconds."""
Draw = Callable[[Stacks, str], str]
"""Makes a page of stacks and a title. Given by who may import it: drawing is a later stage's."""

_SHOWN = 25
_KEY = ("cluster", "node", *WORKLOAD, "type", "unit", "id", "frames")
_FLAT = ("time_ns", *_KEY, "value", "period")
_FOLDED = str.maketrans({";": ":", "\n": " ", "\r": " "})


def view(form: str, file: Path | None = None, draw: Draw | None = None) -> View:
    """Return how stacks are shown: ``columns``, ``json`` or ``folded``; and drawn to ``file`` when there is one.

    Raises:
        UsageError: there is nobody to draw.
    """
    if file is not None and draw is None:
        raise UsageError("--flamegraph needs the perfstream command")
    show = {"columns": print_table, "json": print_json, "folded": print_folded}[form]

    def shown(rows: pa.RecordBatch) -> None:
        show(rows)
        if file is not None and draw is not None:
            write(file, draw(paths(rows), str(rows.column("type")[0])))

    return View("profile", merged, shown)


def merged(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    """Return rows of many intervals added up: one for each node, workload and stack, the greatest value first.

    The stack's parts are columns of their own: ``id`` and ``frames``. None when there are no rows.
    """
    tables = [pa.Table.from_batches([_flat(batch)]) for batch in batches if batch.num_rows]
    if not tables:
        return None
    table = pa.concat_tables(tables).group_by(_KEY, use_threads=False)
    table = table.aggregate([("value", "sum"), ("period", "max"), ("time_ns", "min")])
    names = {"value_sum": "value", "period_max": "period", "time_ns_min": "time_ns"}
    table = table.rename_columns([names.get(name, name) for name in table.column_names]).select(_FLAT)
    return table.sort_by([("value", "descending")]).combine_chunks().to_batches()[0]


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch without dictionaries; one that is flat already as it is."""
    if "frames" in batch.schema.names:
        return batch
    stack = batch.column("stack")
    columns = {name: batch.column(name) for name in ("time_ns", "value", "period")}
    columns |= {name: batch.column(name).cast(pa.string()) for name in _KEY[:-2]}
    parts = {"id": stack.dictionary.field("id"), "frames": StackColumns.from_entries(stack.dictionary).texts()}
    columns |= {name: part.take(stack.indices) for name, part in parts.items()}
    return pa.RecordBatch.from_pydict({name: columns[name] for name in _FLAT})


def print_json(rows: pa.RecordBatch) -> None:
    """Print the rows as the collector would publish them, one object a line."""
    for each in rows.to_pylist():
        each["stack"] = {"id": each.pop("id"), "frames": each.pop("frames")}
        each["time"] = rfc3339(each["time_ns"])
        sys.stdout.write(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def print_folded(rows: pa.RecordBatch) -> None:
    """Print ``root;…;leaf value`` for each distinct path, as the tools of FlameGraph read it."""
    for path, value in paths(rows).items():
        sys.stdout.write(";".join(name.translate(_FOLDED) for name in path) + f" {value}\n")
    sys.stdout.flush()


def print_table(rows: pa.RecordBatch) -> None:
    """Print the functions with the most time in themselves, and their total with what they call."""
    own, whole = functions(paths(rows))
    total = sum(own.values())
    order = sorted(whole, key=lambda name: (-own.get(name, 0), -whole[name]))
    found = pa.RecordBatch.from_pydict(
        {
            "self_ns": [own.get(name, 0) for name in order],
            "self_percent": [own.get(name, 0) / total * 100 for name in order],
            "total_ns": [whole[name] for name in order],
            "total_percent": [whole[name] / total * 100 for name in order],
            "function": order,
        }
    )
    for at, line in enumerate(lines(found.slice(0, _SHOWN), found.schema.names, Screen().room()[0])):
        click.secho(line, bold=at == 0)
    if found.num_rows > _SHOWN:
        click.echo(f"… {found.num_rows - _SHOWN} more (-o folded or json shows all)")


def paths(rows: pa.RecordBatch) -> dict[tuple[str, ...], int]:
    """Return the distinct paths of functions and their values: files and lines fall together."""
    found: dict[tuple[str, ...], int] = {}
    for frames, value in zip(rows.column("frames").to_pylist(), rows.column("value").to_pylist(), strict=True):
        path = tuple(frame.function for frame in split(frames))
        found[path] = found.get(path, 0) + value
    return found


def functions(stacks: Stacks) -> tuple[dict[str, int], dict[str, int]]:
    """Return each function's (self, total); one that calls itself counts once in its total."""
    own: dict[str, int] = {}
    whole: dict[str, int] = {}
    for path, value in stacks.items():
        own[path[-1]] = own.get(path[-1], 0) + value
        for name in set(path):
            whole[name] = whole.get(name, 0) + value
    return own, whole


def write(file: Path, page: str) -> None:
    """Write a page, with the folders that it needs.

    Raises:
        PerfstreamError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PerfstreamError(f"cannot write {file}: {error.strerror}; choose another file") from error
    click.echo(f"{file}: {len(page.encode()) / 1024:.0f} KiB", err=True)
