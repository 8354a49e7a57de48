"""Latency rows for the terminal: percentiles, and the distribution as bars."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.gadget.output import plain, short
from collectors.gadget.view import View
from streams.schema.histogram import quantile
from streams.schema.messages import WORKLOAD

_SHOWN = 20
_KEY = ("cluster", "node", *WORKLOAD, "probe", "operation")


def view(form: str) -> View:
    """Return how latencies are shown: ``columns`` or ``json``."""
    return View("latency", merged, print_json if form == "json" else print_table)


def print_json(rows: pa.RecordBatch) -> None:
    """Print the rows as the collector would publish them, one object a line."""
    for each in plain(rows):
        sys.stdout.write(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def print_table(rows: pa.RecordBatch) -> None:
    """Print each operation's percentiles, those that took the most time first, and the sum of all as bars."""
    objects = sorted(rows.to_pylist(), key=lambda each: -int(each["sum_ns"]))
    service = max([7, *(len(each["service"]) for each in objects[:_SHOWN])])
    operation = max([9, *(len(each["operation"]) for each in objects[:_SHOWN])])
    columns = ("COUNT", "P50", "P90", "P99", "MAX", "SUM")
    click.secho(
        f"{'SERVICE':<{service}}  {'OPERATION':<{operation}}  " + "  ".join(f"{c:>8}" for c in columns), bold=True
    )
    for each in objects[:_SHOWN]:
        buckets, counts = _arrays(each)
        # A bucket's middle may lie above the greatest value in it.
        quantiles = [short(min(quantile(buckets, counts, q), each["max_ns"])) for q in (0.5, 0.9, 0.99)]
        cells = [f"{each['count']:,}", *quantiles, short(each["max_ns"]), short(each["sum_ns"])]
        click.echo(
            f"{each['service']:<{service}}  {each['operation']:<{operation}}  " + "  ".join(f"{c:>8}" for c in cells)
        )
    if len(objects) > _SHOWN:
        click.echo(f"… {len(objects) - _SHOWN} more (-o json shows all)")
    click.echo("")
    for line in bars(objects):
        click.echo(line)


def merged(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    """Return rows of many intervals added up: one for each node, workload and operation; None when there are none."""
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in (row for batch in batches for row in batch.to_pylist()):
        key = tuple(each[name] for name in _KEY)
        found = sums.setdefault(key, {**each, "buckets": [], "counts": [], "count": 0, "sum_ns": 0, "max_ns": 0})
        found["buckets"] += each["buckets"]
        found["counts"] += each["counts"]
        found["count"] += each["count"]
        found["sum_ns"] += each["sum_ns"]
        found["max_ns"] = max(found["max_ns"], each["max_ns"])
        found["time_ns"] = min(found["time_ns"], each["time_ns"])
        found["period"] = max(found["period"], each["period"])
    for found in sums.values():
        buckets, at = np.unique(np.array(found["buckets"], np.uint16), return_inverse=True)
        counts = np.zeros(len(buckets), np.uint64)
        np.add.at(counts, at, np.array(found["counts"], np.uint64))
        found["buckets"], found["counts"] = buckets.tolist(), counts.tolist()
    return pa.RecordBatch.from_pylist(list(sums.values()), schema=batches[0].schema) if sums else None


def bars(objects: list[dict[str, Any]]) -> Iterator[str]:
    """Yield one line for each octave of latency that holds anything: range, count, bar."""
    octaves: dict[int, int] = {}
    for each in objects:
        buckets, counts = _arrays(each)
        for octave, count in zip((buckets // 16).tolist(), counts.tolist(), strict=True):
            octaves[octave] = octaves.get(octave, 0) + count
    if not octaves:
        return
    most = max(octaves.values())
    room = min(60, max(10, shutil.get_terminal_size((100, 24)).columns - 40))
    for octave in range(min(octaves), max(octaves) + 1):
        count = octaves.get(octave, 0)
        low, high = (0, 16) if octave == 0 else (1 << (octave + 3), 1 << (octave + 4))
        yield f"{short(low):>8} .. {short(high):<8} {count:>10,}  {'█' * round(count / most * room)}".rstrip()


def _arrays(row: dict[str, Any]) -> tuple[NDArray[np.uint16], NDArray[np.uint64]]:
    return np.array(row["buckets"], np.uint16), np.array(row["counts"], np.uint64)
