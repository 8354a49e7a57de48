"""A small fleet whose every sum is known, written into a migrated database with plain inserts."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from runtime.settings import ClickHouseSettings
from sinks.migrate import migrate
from streams.schema.histogram import bucket_of

MS = 1_000_000
STACKS = {
    11: ["main", "work", "alpha"],
    12: ["main", "work", "beta"],
    13: ["main", "walk", "walk", "walk"],
    14: ["main", "walk", "step", "walk"],
    15: ["main"],
    16: ["main", "idle", "do_nanosleep_[k]"],
    17: ["<script>alert(1)</script>", "Ü 'quoted' \"name\"\\\t%s {x:String}"],
}
UNSTORED = 99
TINY = range(1000, 1500)
"""Stacks of one sample each below ``small``: together under the share that a flame graph draws."""
ODD = 'o\'brien\\ "x"\ty {n:UInt32} %(a)s --'
"""A service's name that every quoting mistake would break."""


def start_of_data() -> datetime:
    """Return a whole minute a few minutes ago, so that TTLs and ``--since`` work."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=6)


@dataclass
class Known:
    """What was written: samples as tuples, latencies in ns by (probe, operation, service)."""

    dsn: str
    database: str
    start: datetime
    samples: list[tuple] = field(default_factory=list)
    latencies: dict[tuple[str, str, str], list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def end(self) -> datetime:
        return self.start + timedelta(minutes=5)

    @property
    def times(self) -> list[str]:
        return ["--from", self.start.isoformat(), "--to", self.end.isoformat()]

    def chosen(self, kind="cpu", **labels):
        """Yield (frames, value) of the samples that match."""
        for row in self.samples:
            if row["type"] == kind and all(row[name] == value for name, value in labels.items()):
                stack = row["stack_id"]
                yield STACKS.get(stack) or (["[stack not stored]"] if stack == UNSTORED else tiny(stack)), row["value"]

    def top(self, **selected):
        """Return {function: (self, total)}, recursion counted once."""
        own, total = defaultdict(int), defaultdict(int)
        for frames, value in self.chosen(**selected):
            own[frames[-1]] += value
            for name in set(frames):
                total[name] += value
        return {name: (own[name], total[name]) for name in total}

    def sum(self, **selected):
        return sum(value for _frames, value in self.chosen(**selected))


def tiny(stack):
    return ["main", "small", f"tiny_{stack}"]


def fill(store, database: str, start: datetime | None = None) -> Known:
    """Migrate the database and write the rows; ``store`` is the fixture."""
    known = Known(f"{store.dsn}/{database}", database, start or start_of_data())
    migrate(ClickHouseSettings(dsn=known.dsn))
    insert = _inserter(store, database)
    insert("stacks", _stacks())
    known.samples = _samples(known.start)
    insert("samples", known.samples)
    insert("hotspots", _hotspots(known))
    insert("latency_windows", _latencies(known))
    insert("events", _events(known.start))
    insert("events", _tables(known.start))
    accounts = list(_intervals(known.start))
    insert("intervals", accounts)
    insert("intervals", accounts[::2])  # delivered again in another batch, as after a crash: they count once
    return known


NETWORK = [
    (31, "dns", 0, 1_100_000, {"name": "good.example", "type": "A", "rcode": "NOERROR", "server": "10.0.0.53:53"}),
    (13, "dns", 3, 700_000, {"name": "none.example", "type": "A", "rcode": "NXDOMAIN", "server": "10.0.0.53:53"}),
    (3, "dns", -110, 5_000_000_000,
     {"name": "slow.example", "type": "AAAA", "rcode": "TIMEOUT", "server": "10.0.0.53:53"}),
    (7, "dns", 0, 90_000, {"name": "localhost", "type": "getaddrinfo", "rcode": "NOERROR"}),
    (11, "tcpretrans", 0, 0, {"local": "10.0.0.1:40000", "state": "ESTABLISHED"}),
    (5, "tcpdrop", 0, 0, {"reason": "NO_SOCKET", "destination": "10.0.0.1:81", "flags": "SYN"}),
    (2, "tcpdrop", 0, 0, {"reason": "TCP_CSUM", "destination": "10.0.0.1:80", "flags": "ACK"}),
    (17, "tcp", 0, 2_000_000,
     {"operation": "close", "bytes_sent": "1009", "bytes_received": "13", "retransmits": "1"}),
    (2, "tcp", -104, 2_000_000,
     {"operation": "close", "bytes_sent": "101", "bytes_received": "7", "retransmits": "0"}),
    (19, "tcp", 0, 1_000, {"operation": "connect"}),
]  # fmt: skip
"""What the collectors of the network tell, of one service and a second apart: count, kind, result, ns, attributes."""


def fill_network(store, known: Known) -> None:
    """Add ``NETWORK``, round trips, and reads of a block device."""
    insert = _inserter(store, known.database)
    insert("events", _network(known.start))
    random = np.random.default_rng(11)
    windows = []
    for probe, operation, service, scale in (
        ("tcprtt", "to :443", "shop", 400_000),
        ("tcprtt", "from :80", "shop", 90_000),
        ("blockio", "vda read", "batch", 150_000),
    ):
        for minute in range(5):
            values = np.maximum(random.lognormal(np.log(scale), 1.0, 101), 1).astype(np.uint64)
            windows += _window(known, minute, "node-a", probe, operation, service, values)
    insert("latency_windows", windows)


def _network(start):
    for count, kind, result, latency, attributes in NETWORK:
        for number in range(count):
            at = (start + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S.5Z")
            yield {"time": at, "cluster": "c1", "node": "node-a", "namespace": "prod", "pod": "p", "container": "c",
                   "service": "net", "version": "v1.0", "kind": kind, "pid": 7, "ppid": 1, "uid": 0, "comm": "curl",
                   "result": result, "latency_ns": latency, "detail": "10.0.0.2:443",
                   "attributes": attributes}  # fmt: skip


TABLES = {"top_tcp": 17, "snapshot_process": 19}
"""Rows of what agents publish where they are told to: not of something that happened."""


def _tables(start):
    for kind, count in TABLES.items():
        for number in range(count):
            at = (start + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S.5Z")
            yield {"time": at, "cluster": "c1", "node": "node-a", "namespace": "prod", "pod": "p", "container": "c",
                   "service": "shop", "version": "v1.0", "kind": kind, "pid": 7, "ppid": 1, "uid": 0, "comm": "shop",
                   "result": 0, "latency_ns": 0, "detail": "row", "attributes": {"sent_bytes": "1009"}}  # fmt: skip


def _inserter(store, database):
    def insert(table, rows):
        body = "\n".join(json.dumps(row) for row in rows).encode()
        store.post(
            f"INSERT INTO {table} FORMAT JSONEachRow", body, database=database, date_time_input_format="best_effort"
        )

    return insert


def _stacks():
    for stack, functions in [*STACKS.items(), *((s, tiny(s)) for s in TINY)]:
        files = ["" if name == "main" else f"{name[:4]}.c" for name in functions]
        # Twice, as the sink does after a day: read without FINAL it must not double a sum.
        for _ in range(2):
            yield {"stack_id": stack, "functions": functions, "files": files,
                   "lines": list(range(1, len(functions) + 1)),
                   "last_seen": int(start_of_data().timestamp())}  # fmt: skip


def _samples(start):
    rows = []

    def add(second, node, service, version, kind, stack, value, unit="nanoseconds", namespace="prod"):
        at = (start + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        rows.append({"time": at, "cluster": "c1", "node": node, "namespace": namespace, "pod": f"{service[:4]}-0",
                     "container": "app", "service": service, "version": version, "type": kind, "unit": unit,
                     "stack_id": stack, "value": value, "period": 20 * MS})  # fmt: skip

    for second in range(0, 300, 10):
        for node, scale in (("node-a", 101), ("node-b", 13)):
            add(second, node, "shop", "v1.0", "cpu", 11, 503 * scale * MS)
            add(second, node, "shop", "v1.0", "cpu", 12, 307 * scale * MS)
            add(second, node, "shop", "v1.1", "cpu", 12, 211 * scale * MS)
            add(second, node, "shop", "v1.1", "cpu", 13, 97 * scale * MS)
            add(second, node, "shop", "v1.1", "cpu", 14, 89 * scale * MS)
        add(second, "node-a", "batch", "", "cpu", 15, 1700 * MS, namespace="jobs")
        add(second, "node-a", "batch", "", "cpu", 16, 3100 * MS, namespace="jobs")
        add(second, "node-a", "batch", "", "cpu", UNSTORED, 700 * MS, namespace="jobs")
        add(second, "node-b", ODD, "v'1", "cpu", 17, 1900 * MS)
        add(second, "node-b", "shop", "v1.0", "alloc_space", 12, 4099, "bytes")
        for node, more in (("node-a", 7), ("node-b", 11)):  # what grows, and what is held
            add(second, node, "shop", "v1.0", "inuse_space", 11, 10_007 + more * second, "bytes")
            add(second, node, "shop", "v1.0", "inuse_space", 12, 50_021, "bytes")
            add(second, node, "shop", "v1.0", "goroutine", 11, 97 + second, "count")
    for stack in TINY:
        add(0, "node-a", "shop", "v1.0", "cpu", stack, 2 * MS)
    return rows


def _hotspots(known):
    sums = defaultdict(lambda: [0, 0])
    for row in known.samples:
        minute = row["time"][:17] + "00Z"
        stack = row["stack_id"]
        frames = STACKS.get(stack) or (["[stack not stored]"] if stack == UNSTORED else tiny(stack))
        names = [name if not name.startswith("tiny_") else "(other)" for name in frames]
        key = tuple(row[n] for n in ("cluster", "namespace", "service", "version", "type", "unit"))
        for name in set(names):
            sums[(minute, *key, name)][0] += row["value"] if names[-1] == name else 0
            sums[(minute, *key, name)][1] += row["value"]
    for (minute, cluster, namespace, service, version, kind, unit, name), (own, total) in sums.items():
        base = {"window_start": minute, "window_s": 60, "shard": 0, "first_offset": 0, "cluster": cluster,
                "namespace": namespace, "service": service, "version": version, "type": kind, "unit": unit,
                "function": name}  # fmt: skip
        # A state of the open window, and the whole one that replaces it.
        yield base | {"late": 0, "last_offset": 5, "self": own // 2, "total": total // 2}
        yield base | {"late": int(name == "do_nanosleep_[k]"), "last_offset": 9, "self": own, "total": total}


def _latencies(known):
    random = np.random.default_rng(7)
    for probe, operation, service, scale in (
        ("runqlat", "", "shop", 40_000),
        ("runqlat", "", "batch", 900_000),
        ("syscall", "read", "shop", 3_000),
        ("syscall", "write", "shop", 9_000),
        ("blockio", "vda write", "batch", 2_000_000),
    ):
        for minute in range(5):
            for node in ("node-a", "node-b"):
                values = np.maximum(random.lognormal(np.log(scale), 1.0, 211), 1).astype(np.uint64)
                yield from _window(known, minute, node, probe, operation, service, values)
    # So few and so far apart that a rank off by one is another bucket.
    yield from _window(known, 0, "node-a", "tcpconnect", "", "shop", np.array([7, 1_000, 90_000], np.uint64))


def _window(known, minute, node, probe, operation, service, values):
    """Yield two states of one window; the second is the whole."""
    known.latencies[probe, operation, service] += values.tolist()
    buckets, counts = np.unique(bucket_of(values), return_counts=True)
    at = (known.start + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")
    base = {"window_start": at, "window_s": 60, "shard": 0, "first_offset": 0, "late": 0, "cluster": "c1",
            "node": node, "namespace": "prod", "pod": "", "container": "", "service": service,
            "version": "v1.0", "probe": probe, "operation": operation}  # fmt: skip
    whole = {"buckets": buckets.tolist(), "counts": counts.tolist(), "count": len(values),
             "sum_ns": int(values.sum()), "max_ns": int(values.max()), "period": 1}  # fmt: skip
    yield base | whole | {"last_offset": 9}
    yield base | whole | {"last_offset": 4, "max_ns": 2**60, "count": 1}


def _events(start):
    for number in range(13 + 7 + 2):
        kind = "exec" if number < 13 else "tcpconnect" if number < 20 else "oomkill"
        failed = 13 <= number < 16
        at = (start + timedelta(seconds=11 * number)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
        yield {"time": at, "cluster": "c1", "node": "node-a", "namespace": "prod", "pod": "p", "container": "c",
               "service": "shop", "version": "v1.0", "kind": kind, "pid": 100 + number, "ppid": 1, "uid": 0,
               "comm": "sh", "result": -111 if failed else 0, "latency_ns": 1000, "detail": "/bin/true",
               "attributes": {}}  # fmt: skip


def _intervals(start):
    for number in range(30):
        for node in ("node-a", "node-b"):
            for partition, (schema, collector) in enumerate(
                (("profile", "cpu"), ("latency", "runqlat"), ("event", "exec"))
            ):
                at = start + timedelta(seconds=10 * number)
                stamp, end, append = (
                    (at + timedelta(seconds=s)).strftime("%Y-%m-%dT%H:%M:%S.000Z") for s in (0, 10, 10)
                )
                yield {"time": stamp, "end_time": end, "cluster": "c1", "node": node, "collector": collector,
                       "schema": schema, "producer": f"{node}-1", "sequence": number, "rows": 5, "events": 500,
                       "lost": 3 if node == "node-b" else 0, "clamped": 0, "topic": f"perfstream.raw.{schema}",
                       "partition": partition, "offset": 2 * number + (node == "node-b"),
                       "append_time": append}  # fmt: skip
