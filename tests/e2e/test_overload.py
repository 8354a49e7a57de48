"""Ten times what the pipeline can take: memory keeps to a bound, the lag is seen, and in the end every row is there."""

import asyncio
import time
from dataclasses import replace

import pytest

from deploy.stack import status
from runtime.lag import LATE_S
from streams.schema import codec
from tests.bench.agent import memory_mb
from tests.bench.load import SECOND, Population, Shape, message, publish
from tests.bench.pipeline import connect, stack

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.alone, pytest.mark.timeout(300)]

SHAPE = Shape(nodes=20, rows=5000)
MADE, TIMES = 40, 64
READERS = ("worker", "sink")
LOOK_S = 3.0
MOST_MB = {"worker": 600, "sink": 1600, "store": 1500}


def backlog():
    """Yield messages as ``publish`` wants them: known ones, again and again, each under a number of its own."""
    population = Population(SHAPE, seed=5)
    start = (int(time.time()) - 3600) // 60 * 60 * SECOND
    for number in range(MADE):
        key, value, headers, rows, total = message(population, number % 20, number // 20, start, "overload")
        _, interval = codec.decode_headers(headers)
        for again in range(TIMES):
            numbered = replace(interval, sequence=number * TIMES + again)
            fields = dict(headers) | {"sequence": str(numbered.sequence).encode()}
            yield key, value, list(fields.items()), rows, total


def looks(instance):
    """Return {stage: (resident MB, its lag in seconds, reason of its lag check)}."""
    found = {}
    for name in MOST_MB:
        reading = status.read(instance.stages[name])
        lag = reading.counters.get(f"perfstream_{name}_lag_seconds", 0.0)
        found[name] = memory_mb(instance.stages[name].pid, "VmRSS"), lag, dict(reading.problems).get("lag", "")
    return found


def test_memory_is_bounded_the_lag_is_seen_and_every_row_arrives():
    made = list(backlog())
    rows, value = sum(m[3] for m in made), sum(m[4] for m in made)
    with stack() as (instance, addresses):
        began = time.monotonic()
        asyncio.run(publish(addresses.kafka, made))
        offered = rows / (time.monotonic() - began)
        del made
        client = connect(addresses)
        most, lags, seen, stored = dict.fromkeys(MOST_MB, 0.0), dict.fromkeys(READERS, 0.0), set(), 0
        while stored < rows or any(reason for *_, reason in looks(instance).values()):
            for name, (megabytes, lag, reason) in looks(instance).items():
                most[name] = max(most[name], megabytes)
                if name in READERS:
                    lags[name] = max(lags[name], lag)
                if reason:
                    seen.add(name)
            assert time.monotonic() - began < 240, (stored, rows)
            time.sleep(0.3)
            stored = client.query("SELECT count() FROM samples").result_rows[0][0]
        taken = rows / (time.monotonic() - began)
        print(f"offered {offered:,.0f} rows/s, taken {taken:,.0f}; most memory {most}; lag {lags}; behind: {seen}")
        assert (stored, client.query("SELECT sum(value) FROM samples").result_rows[0][0]) == (rows, value)
        assert max(lags, key=lags.get) in seen, lags
        # How far behind a reader gets depends on the machine; that it shows it, and says it from LATE_S on, does not.
        assert all(lag > 1 for lag in lags.values()), lags
        assert seen >= {name for name, lag in lags.items() if lag > LATE_S + LOOK_S}, lags
        assert all(most[name] < bound for name, bound in MOST_MB.items()), most
