"""What the live status shows: each stage's state, cost, rates, lag and losses, from its own ``/metrics``."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table
from rich.text import Text

from deploy.stack.process import Stage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Reading:
    """One look at a stage. ``counters`` are the sums of each metric over its labels."""

    at: float
    cpu_s: float = 0.0
    rss_bytes: int = 0
    counters: Mapping[str, float] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def read(stage: Stage, only: Sequence[str] = ()) -> Reading:
    """Look at a stage now, at all its metrics or ``only`` some; what does not answer is left out."""
    reading = Reading(time.monotonic())
    if stage.pid is None:
        return reading
    reading.cpu_s, reading.rss_bytes = _cost(stage.pid)
    if stage.metrics:
        reading.counters = _metrics(stage.metrics, only)
        reading.problems = _problems(stage.metrics)
    return reading


def _cost(pid: int) -> tuple[float, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return 0.0, 0
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


def _metrics(base: str, only: Sequence[str]) -> dict[str, float]:
    asked = urllib.parse.urlencode([("name[]", name) for name in only])
    try:
        with urllib.request.urlopen(f"{base}/metrics?{asked}", timeout=1) as answer:  # noqa: S310 - our own loopback addresses
            text = answer.read().decode()
    except (OSError, ValueError):
        return {}
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def _problems(base: str) -> dict[str, str]:
    try:
        with urllib.request.urlopen(f"{base}/healthz", timeout=1) as answer:  # noqa: S310 - our own loopback addresses
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError:
        return {"healthz": "does not answer"}
    try:
        return {check: reason for check, reason in json.loads(body)["checks"].items() if reason}
    except (ValueError, KeyError):
        return {"healthz": "not understood"}


@dataclass(frozen=True, slots=True)
class Column:
    """Which metrics of a stage make up a figure of the status."""

    rows: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    lag: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return all of them."""
        return self.rows + self.lost + self.lag


# Rates come from counters, lag from gauges. The names are those that the stages serve.
SHOWN = {
    "agent": Column(("perfstream_agent_rows_total",), ("perfstream_agent_lost_total",)),
    "ingest": Column(("perfstream_ingest_rows_total",)),
    "worker": Column(
        ("perfstream_worker_rows_total",),
        ("perfstream_worker_bad_records_total",),
        ("perfstream_worker_lag_messages",),
    ),
    "sink": Column(
        ("perfstream_sink_rows_total",), ("perfstream_sink_dead_letters_total",), ("perfstream_sink_lag_messages",)
    ),
    "store": Column(("perfstream_store_insert_rows_total",)),
}


def look(stages: Mapping[str, Stage]) -> dict[str, Reading]:
    """Look at what ``table`` shows. All metrics of an agent, each second, are a hundredth of a core for it."""
    return {name: read(stage, SHOWN.get(name, Column()).metrics) for name, stage in stages.items()}


def table(stages: Mapping[str, Stage], before: Mapping[str, Reading], now: Mapping[str, Reading], title: str) -> Table:
    """Return the status as a table: rates are between the two looks."""
    result = Table(title=title, title_justify="left", expand=False, pad_edge=False, box=None, header_style="bold")
    for heading in ("stage", "state", "pid", "cpu %", "rss MB", "rows/s", "rows", "lag", "lost"):
        result.add_column(heading, justify="left" if heading in ("stage", "state") else "right", no_wrap=True)
    for name, stage in stages.items():
        reading, previous = now[name], before.get(name)
        elapsed = reading.at - previous.at if previous else 0.0
        shown = SHOWN.get(name, Column())
        rows = _sum(reading, shown.rows)
        old = _sum(previous, shown.rows) if previous else None
        rate = (rows - old) / elapsed if rows is not None and old is not None and elapsed > 0 else None
        cpu = (reading.cpu_s - previous.cpu_s) / elapsed * 100 if previous and elapsed > 0 else None
        result.add_row(
            name,
            _state(stage, reading),
            str(stage.pid or "-"),
            _figure(cpu, ".1f"),
            _figure(reading.rss_bytes / 1e6 if stage.pid else None, ".0f"),
            _figure(rate, ",.0f"),
            _figure(rows, ",.0f"),
            _figure(_sum(reading, shown.lag), ",.0f"),
            _figure(_sum(reading, shown.lost), ",.0f"),
        )
    return result


def troubles(now: Mapping[str, Reading]) -> list[str]:
    """Return one line for each check that a stage says is not well, with its reason in full."""
    return [f"{name}: {reason}" for name, reading in now.items() for reason in reading.problems.values()]


def _state(stage: Stage, reading: Reading) -> Text:
    if stage.pid is None:
        return Text(f"down ({stage.last_exit})" if stage.last_exit is not None else "starting", style="red")
    if reading.problems:
        return Text(f"ill: {', '.join(reading.problems)}"[:48], style="yellow")
    return Text("well" if not stage.restarts else f"well (restarts: {stage.restarts})", style="green")


def _sum(reading: Reading | None, names: tuple[str, ...]) -> float | None:
    if reading is None or not names:
        return None
    found = [reading.counters[name] for name in names if name in reading.counters]
    return sum(found) if found else None


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(max(0.0, value), form)
