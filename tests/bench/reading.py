"""How long the questions take on a large store: 100 million sample rows of 200 services over a day.

The rows are made by the store itself: services are as busy as 1/rank, each has 500 stacks of its own, of mean depth 25
from 3,000 functions, as busy as 1/rank too. Asked is what people ask: one service, one hour; the busiest service and
one in the middle. Each question is asked once cold and five times more; the figure is the median.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from dashboards import comparing, reading
from dashboards.selection import Selection, make
from dashboards.store import connect
from deploy.stack.supervisor import Stack
from runtime.workdir import Endpoints
from tests.bench import pipeline
from tests.bench.agent import memory_mb

ROWS = int(os.environ.get("PERFSTREAM_BENCH_ROWS", "100_000_000"))
BATCH = 5_000_000
SERVICES, STACKS, FUNCTIONS = 200, 500, 3_000
ASKED = {"busiest": 0, "middle": SERVICES // 2}
TIMES = 5

_STACKS = f"""
INSERT INTO stacks
SELECT number AS stack_id,
       arrayMap(f -> concat('package', toString(f % 97), '::function_', toString(f)),
                arrayMap(i -> cityHash64(if(i < 8, intDiv(number, {STACKS}), number), i) % {FUNCTIONS}, range(depth))
       ) AS functions,
       arrayMap(i -> concat('/usr/lib/lib', toString(i % 31), '.so'), range(depth)) AS files,
       arrayMap(i -> toUInt32(i), range(depth)) AS lines, now()
FROM (SELECT number, 13 + cityHash64(number, 1) % 25 AS depth FROM numbers({SERVICES * STACKS}))"""

# exp(u * ln(n)) is as 1/rank over 1 .. n.
_SAMPLES = f"""
INSERT INTO samples
SELECT toDateTime64(toDateTime({{start:UInt32}}) + (cityHash64(number, 1) % 8640) * 10, 3, 'UTC') AS time,
       'bench' AS cluster, concat('node-', toString(cityHash64(number, 2) % 20)) AS node, 'shop' AS namespace,
       concat(service, '-', toString(cityHash64(number, 3) % 3)) AS pod, 'app' AS container,
       concat('service-', leftPad(toString(s), 3, '0')) AS service,
       if(cityHash64(number, 4) % 4 = 0, 'v1.1', 'v1.0') AS version, 'cpu' AS type, 'nanoseconds' AS unit,
       s * {STACKS} + toUInt64(exp(randCanonical(2) * log({STACKS}))) - 1 AS stack_id,
       20408163 * (1 + cityHash64(number, 5) % 3) AS value, 20408163 AS period
FROM (SELECT number, toUInt64(exp(randCanonical(1) * log({SERVICES}))) - 1 AS s
      FROM numbers({{from:UInt64}}, {{count:UInt64}}))"""


def fill(client: Any, start: datetime) -> None:
    """Make the stacks and the rows, and let the store merge what it wants to."""
    client.command(_STACKS)
    for begin in range(0, ROWS, BATCH):
        parameters = {"start": int(start.timestamp()), "from": begin, "count": min(BATCH, ROWS - begin)}
        client.command(_SAMPLES, parameters=parameters, settings={"max_insert_threads": 2, "optimize_on_insert": 0})
    for _ in range(600):
        if not client.query("SELECT count() FROM system.merges").result_rows[0][0]:
            break
        time.sleep(0.5)


def median_s(ask: Callable[[], object]) -> tuple[float, float]:
    """Return (the first time, the median of the others) in seconds."""
    spent = []
    for _ in range(1 + TIMES):
        began = time.monotonic()
        ask()
        spent.append(time.monotonic() - began)
    return spent[0], float(np.median(spent[1:]))


def ask(instance: Stack, addresses: Endpoints) -> Iterator[tuple[str, float, str]]:
    """Fill the store and yield the figures."""
    client = pipeline.connect(addresses)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    began = time.monotonic()
    fill(client, now - timedelta(hours=24))
    yield "filled_s", time.monotonic() - began, "s"
    store = connect(addresses.clickhouse)
    hour = {"start": (now - timedelta(hours=5)).isoformat(), "end": (now - timedelta(hours=4)).isoformat()}

    def of(number: int, version: str = "") -> Selection:
        return make(f"service-{number:03d}" + (f'{{version="{version}"}}' if version else ""), **hour)

    for name, number in ASKED.items():
        chosen = of(number)
        (rows,) = store.client.query(
            "SELECT count() FROM samples WHERE service = {s:String} "
            "AND time >= {a:DateTime64(3)} AND time < {b:DateTime64(3)}",
            parameters={"s": f"service-{number:03d}", "a": chosen.start, "b": chosen.end},
        ).result_rows[0]
        yield f"rows_asked_{name}", float(rows), "rows"
        for what, question in (
            ("top", lambda chosen=chosen: reading.top(store, chosen)),
            ("flamegraph", lambda chosen=chosen: reading.flamegraph(store, chosen)),
            ("compare", lambda number=number: comparing.compare(store, (of(number, "v1.0"), of(number, "v1.1")))),
        ):
            first, rest = median_s(question)
            suffix = "" if name == "busiest" else f"_{name}"
            yield f"{what}{suffix}_s", rest, "s"
            yield f"{what}{suffix}_first_s", first, "s"
    whole = {"start": (now - timedelta(hours=24)).isoformat(), "end": now.isoformat()}
    day = make('service-000{version="v1.0"}', **whole), make('service-000{version="v1.1"}', **whole)
    yield "compare_day_s", median_s(lambda: comparing.compare(store, day))[1], "s"
    week = make("service-000", since="7d")
    yield "top_week_s", median_s(lambda: reading.top(store, week))[1], "s"
    yield "store_rss_mb", memory_mb(instance.stages["store"].pid, "VmRSS"), "MB"


def figures() -> Iterator[tuple[str, float, str]]:
    """Every figure of this module."""
    with pipeline.stack() as (instance, addresses):
        yield from ask(instance, addresses)
