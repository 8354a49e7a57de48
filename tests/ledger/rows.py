"""What the nodes publish: a pure function of (seed, node, kind, number), and the sums that must come out of it.

Everything in columns. Event time runs a tenth of a second a message, from three hours ago, so that a run crosses hours
and dozens of windows; some rows are minutes older than their message, so that windows see late rows.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from streams.schema import stack_columns
from streams.schema.messages import EVENT, LATENCY, PROFILE, TEXT, WORKLOAD
from streams.schema.stacks import frame_text, join

SECOND = 1_000_000_000
STEP_NS = SECOND // 10
WINDOW_NS = 60 * SECOND
KINDS = ("profile", "latency", "event")
TYPES, SERVICES, VERSIONS, STACKS, FUNCTIONS = 2, 5, 2, 151, 41
OPERATIONS = ("read", "write", "futex")
BUCKETS = 97
DELAYS_S = np.array([0] * 14 + [3, 19, 47, 211])
ROWS = {"profile": 307, "latency": 23, "event": 53}


def start_of_time() -> int:
    """Return where event time begins: a whole minute, three hours ago."""
    return (time.time_ns() - 3 * 3600 * SECOND) // WINDOW_NS * WINDOW_NS


def text(names, indices) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(names)).cast(TEXT)


@dataclass(frozen=True)
class World:
    """All that a run's rows depend on."""

    seed: int
    begin_ns: int

    @cached_property
    def chains(self) -> list[list[int]]:
        """Functions of each stack, root first; some recurse."""
        rng = np.random.default_rng((self.seed, 99))
        return [rng.integers(0, FUNCTIONS, 1 + at % 9).tolist() for at in range(STACKS)]

    @cached_property
    def stacks(self) -> pa.StructArray:
        texts = [join([frame_text(f"f{f}", "a.c", f) for f in chain]) for chain in self.chains]
        # Equal chains are one stack: a number of its own in the root keeps them apart.
        texts = [join([frame_text("main", "main.c", at), body]) for at, body in enumerate(texts)]
        return stack_columns.entries(texts)

    def draw(self, node: int, kind: str, number: int) -> dict[str, np.ndarray]:
        """Return the numbers that a message is made of."""
        rng = np.random.default_rng((self.seed, node, KINDS.index(kind), number))
        n = ROWS[kind]
        start = self.begin_ns + number * STEP_NS
        drawn = {
            "time": np.maximum(self.begin_ns, start - rng.choice(DELAYS_S, n) * SECOND),
            "service": rng.integers(0, SERVICES, n),
            "version": rng.integers(0, VERSIONS, n),
        }
        if kind == "profile":
            drawn |= {
                "type": rng.integers(0, TYPES, n), "stack": rng.integers(0, STACKS, n),
                "value": rng.integers(1, 1000, n),
            }  # fmt: skip
        elif kind == "latency":
            counts = rng.integers(1, 99, (n, 3))
            low = rng.integers(0, BUCKETS - 40, n)
            drawn |= {
                "operation": rng.integers(0, len(OPERATIONS), n), "counts": counts,
                "buckets": np.stack([low, low + 7, low + 31], 1), "sum": rng.integers(1, 10**6, n),
                "max": rng.integers(1, 10**6, n),
            }  # fmt: skip
        else:
            drawn |= {"pid": rng.integers(1, 10**5, n), "latency": rng.integers(0, 10**9, n)}
        return drawn

    def batch(self, node: int, kind: str, number: int) -> pa.RecordBatch:
        """Return the rows of one message."""
        drawn = self.draw(node, kind, number)
        n = ROWS[kind]
        zero = np.zeros(n, np.int32)
        columns = {
            "time_ns": pa.array(drawn["time"], pa.int64()),
            "service": text([f"service-{i}" for i in range(SERVICES)], drawn["service"]),
            "version": text([f"v{i}" for i in range(VERSIONS)], drawn["version"]),
        }
        for name in WORKLOAD:
            columns.setdefault(name, text([name], zero))
        if kind == "profile":
            columns |= {
                "type": text([f"type{i}" for i in range(TYPES)], drawn["type"]),
                "unit": text(["count"], zero),
                "stack": pa.DictionaryArray.from_arrays(pa.array(drawn["stack"], pa.int32()), self.stacks),
                "value": pa.array(drawn["value"], pa.int64()),
                "period": pa.array(np.ones(n), pa.int64()),
            }
        elif kind == "latency":
            at = pa.array(np.arange(0, 3 * n + 1, 3), pa.int32())
            columns |= {
                "probe": text(["syscall"], zero),
                "operation": text(OPERATIONS, drawn["operation"]),
                "buckets": pa.ListArray.from_arrays(at, pa.array(drawn["buckets"].ravel(), pa.uint16())),
                "counts": pa.ListArray.from_arrays(at, pa.array(drawn["counts"].ravel(), pa.uint64())),
                "count": pa.array(drawn["counts"].sum(1), pa.uint64()),
                "sum_ns": pa.array(drawn["sum"], pa.uint64()),
                "max_ns": pa.array(drawn["max"], pa.uint64()),
                "period": pa.array(np.ones(n), pa.uint32()),
            }
        else:
            columns |= {
                "kind": text(["exec"], zero),
                "pid": pa.array(drawn["pid"], pa.uint32()),
                "ppid": pa.array(zero, pa.uint32()),
                "uid": pa.array(zero, pa.uint32()),
                "comm": text(["sh"], zero),
                "result": pa.array(zero, pa.int32()),
                "latency_ns": pa.array(drawn["latency"], pa.uint64()),
                "detail": pa.array([f"/bin/{i}" for i in drawn["pid"].tolist()]),
                "attributes": pa.array([[]] * n, pa.map_(pa.string(), pa.string())),
            }
        schema = {"profile": PROFILE, "latency": LATENCY, "event": EVENT}[kind]
        return pa.RecordBatch.from_arrays([columns[f.name].cast(f.type) for f in schema], schema=schema)


def _no_values():
    return np.zeros((TYPES, SERVICES, VERSIONS, STACKS), np.int64)


@dataclass
class Sums:
    """What the tables must say. Keys are what the queries in ``tests.ledger.store`` group by; times in seconds."""

    world: World
    samples: Counter = field(default_factory=Counter)
    hours: Counter = field(default_factory=Counter)
    events: Counter = field(default_factory=Counter)
    intervals: Counter = field(default_factory=Counter)
    latencies: Counter = field(default_factory=Counter)
    maxima: Counter = field(default_factory=Counter)
    _stacks: dict = field(default_factory=lambda: defaultdict(_no_values))

    def add(self, node: int, kind: str, number: int) -> None:
        """Count one message in."""
        drawn = self.world.draw(node, kind, number)
        name = f"node-{node}"
        n = ROWS[kind]
        self.intervals[name, kind, "messages"] += 1
        self.intervals[name, kind, "rows"] += n
        self.intervals[name, kind, "events"] += n
        minute = drawn["time"] // WINDOW_NS * 60
        getattr(self, f"_add_{kind}")(name, drawn, minute)

    def _add_profile(self, name, drawn, minute):
        for at in np.unique(minute).tolist():
            rows = minute == at
            value = drawn["value"][rows]
            where = tuple(drawn[key][rows] for key in ("type", "service", "version", "stack"))
            np.add.at(self._stacks[at], where, value)
        for kind, service in np.unique(np.stack([drawn["type"], drawn["service"]]), axis=1).T.tolist():
            rows = (drawn["type"] == kind) & (drawn["service"] == service)
            key = f"type{kind}", f"service-{service}"
            self.samples[(*key, name, "rows")] += int(rows.sum())
            self.samples[(*key, name, "value")] += int(drawn["value"][rows].sum())
            hour = minute[rows] // 3600 * 3600
            for at in np.unique(hour).tolist():
                self.hours[(*key, at)] += int(drawn["value"][rows][hour == at].sum())

    def _add_latency(self, name, drawn, minute):
        for row, at in enumerate(minute.tolist()):
            key = at, name, f"service-{drawn['service'][row]}", OPERATIONS[drawn["operation"][row]]
            self.latencies[(*key, "count")] += int(drawn["counts"][row].sum())
            self.latencies[(*key, "sum")] += int(drawn["sum"][row])
            self.maxima[(*key, "max")] = max(self.maxima[(*key, "max")], int(drawn["max"][row]))
            for bucket, count in zip(drawn["buckets"][row].tolist(), drawn["counts"][row].tolist(), strict=True):
                self.latencies[(*key, bucket)] += count

    def _add_event(self, name, drawn, _minute):
        for service in range(SERVICES):
            rows = drawn["service"] == service
            self.events[name, f"service-{service}", "rows"] += int(rows.sum())
            self.events[name, f"service-{service}", "latency"] += int(drawn["latency"][rows].sum())

    def hotspots(self) -> Counter:
        """Return {(minute, type, service, version, function, self or total): sum}."""
        leaf = np.zeros((STACKS, FUNCTIONS + 1), np.int64)
        inside = np.zeros_like(leaf)
        for at, chain in enumerate(self.world.chains):
            leaf[at, chain[-1]] = 1
            inside[at, [*chain, FUNCTIONS]] = 1
        found: Counter = Counter()
        for minute, values in self._stacks.items():
            for what, matrix in (("self", leaf), ("total", inside)):
                sums = values @ matrix
                for *at, function in np.argwhere(sums).tolist():
                    kind, service, version = at
                    name = "main" if function == FUNCTIONS else f"f{function}"
                    found[minute, f"type{kind}", f"service-{service}", f"v{version}", name, what] = int(
                        sums[kind, service, version, function]
                    )
        return found

    def tables(self) -> dict[str, Counter]:
        """Return every table's sums, zeros left out."""
        return {
            "samples": +self.samples, "samples_1h": +self.hours, "events": +self.events,
            "intervals": +self.intervals, "hotspots_final": self.hotspots(),
            "latency_final": +(self.latencies + self.maxima),
        }  # fmt: skip
