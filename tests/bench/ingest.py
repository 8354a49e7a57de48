"""Profiles pushed over HTTP: how many a CPU second takes from the request to the query, and how soon they are seen.

A profile is pprof, gzipped: 1,000 samples of mean depth 25 from 3,000 functions. CPU seconds are those of the push
endpoint, worker, sink and store; Kafka's are told beside them. Clients keep their connections, as the real ones do,
and each waits for its answer before it pushes again. Stored bytes are those of all tables: samples, rollups, stacks,
windows.
"""

from __future__ import annotations

import gzip
import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode, urlsplit

import numpy as np

from deploy.stack.supervisor import Stack
from runtime.workdir import Endpoints
from tests.bench.agent import memory_mb
from tests.bench.pipeline import connect, cpu_seconds, stack
from tests.integration.known_profiles import pprof

OURS = ("ingest", "worker", "sink", "store")
SAMPLES, FUNCTIONS, DEPTH = 1_000, 3_000, 25
PROFILES, CLIENTS, SERVICES = 6_000, 16, 20
LOOKS = 40
LOAD_PER_S = 40
"""Profiles pushed in a second while it is measured how soon they are seen under load."""


def profile(seed: int) -> bytes:
    """Return one profile; stacks share their upper parts, as call trees do."""
    rng = np.random.default_rng(seed)
    names = [f"package{i % 97}.module{i % 13}::function_{i}" for i in range(FUNCTIONS)]
    chains: list[list[int]] = [[0]]
    while len(chains) <= SAMPLES:
        base = chains[int(rng.integers(len(chains)))]
        depth = max(2, int(rng.normal(DEPTH, 6)))
        cut = base[: max(1, int(depth * 0.7))]
        chains.append(cut + rng.integers(0, FUNCTIONS, max(1, depth - len(cut))).tolist())
    values = (rng.geometric(0.4, SAMPLES) * 10_000_000).tolist()
    samples = [([names[f] for f in chain], [value]) for chain, value in zip(chains[1:], values, strict=True)]
    return gzip.compress(pprof(samples, compress=False), 6)


_own = threading.local()


def push(address: str, body: bytes, name: str) -> None:
    """Push one profile over this thread's connection and wait for the answer."""
    parts = urlsplit(address)
    if getattr(_own, "address", "") != address:
        _own.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        _own.address = address
    now = int(time.time())
    query = urlencode({"name": name, "format": "pprof", "from": now - 10, "until": now})
    _own.connection.request("POST", f"/ingest?{query}", body)
    answer = _own.connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"a push was answered with {answer.status}: {text[:200]!r}")


class _Bench:
    """The running stack, and what its store holds."""

    def __init__(self, instance: Stack, addresses: Endpoints) -> None:
        self.instance, self.address = instance, addresses.push
        self.client = connect(addresses)
        self.bodies = [profile(seed) for seed in range(SERVICES)]

    def stored(self, service: str = "") -> int:
        where = "WHERE service = {s:String}" if service else ""
        query = f"SELECT count() FROM samples {where}"
        return int(self.client.query(query, parameters={"s": service}).result_rows[0][0])

    def push(self, number: int, service: str) -> None:
        push(self.address, self.bodies[number % SERVICES], service)

    def warm(self) -> None:
        """Let every stack be seen once, as in a service that runs."""
        for number in range(SERVICES):
            self.push(number, f"warm-{number}")
        while self.stored() < SERVICES * SAMPLES:
            time.sleep(0.1)

    def cost(self) -> Iterator[tuple[str, float, str]]:
        before = {name: cpu_seconds(self.instance, (name,)) for name in (*OURS, "kafka")}
        began, had = time.monotonic(), self.stored()
        with ThreadPoolExecutor(CLIENTS) as pool:
            jobs = [pool.submit(self.push, at, f"service-{at % SERVICES}") for at in range(PROFILES)]
            for job in jobs:
                job.result()
        yield "pushed_per_second", PROFILES / (time.monotonic() - began), "1/s"
        while self.stored() - had < PROFILES * SAMPLES:
            time.sleep(0.5)
            if time.monotonic() - began > 240:
                raise SystemExit(f"not all rows arrived: {self.stored() - had} of {PROFILES * SAMPLES}")
        time.sleep(3)  # the windows' last flush
        spent = {name: cpu_seconds(self.instance, (name,)) - before[name] for name in before}
        yield "profiles_per_cpu_second", PROFILES / sum(spent[name] for name in OURS), "1/s"
        for name, seconds in spent.items():
            yield f"cpu_ms_per_profile_{name}", seconds / PROFILES * 1e3, "ms"
        peaks = {name: memory_mb(self.instance.stages[name].pid, "VmHWM") for name in OURS}
        yield "profiles_rss_peak_mb", sum(peaks.values()), "MB"
        for name, peak in peaks.items():
            yield f"profiles_rss_peak_mb_{name}", peak, "MB"
        query = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
        yield "stored_bytes_per_sample", self.client.query(query).result_rows[0][0] / self.stored(), "bytes"

    def waits(self, prefix: str) -> list[float]:
        """Return how long profiles take from the answer to a query's result, in seconds; shape (LOOKS,)."""
        waits = []
        for number in range(LOOKS):
            service = f"{prefix}-{number}"
            self.push(number, service)
            answered = time.monotonic()
            while not self.stored(service):
                time.sleep(0.01)
            waits.append(time.monotonic() - answered)
        return waits

    def loaded_waits(self) -> list[float]:
        """The same while clients push ``LOAD_PER_S`` other profiles a second."""
        enough = threading.Event()

        def load(number: int) -> None:
            while not enough.wait(CLIENTS / LOAD_PER_S):
                self.push(number, f"service-{number}")

        with ThreadPoolExecutor(CLIENTS) as pool:
            jobs = [pool.submit(load, number) for number in range(CLIENTS)]
            time.sleep(3)
            waits = self.waits("loaded")
            enough.set()
            for job in jobs:
                job.result()
        return waits


def figures() -> Iterator[tuple[str, float, str]]:
    """Every figure of this module."""
    with stack(without=("agent",)) as (instance, addresses):
        bench = _Bench(instance, addresses)
        yield "profile_bytes", float(np.mean([len(body) for body in bench.bodies])), "bytes"
        bench.warm()
        yield from bench.cost()
        waits = bench.waits("seen")
        yield "push_to_visible_p50_s", float(np.quantile(waits, 0.5)), "s"
        yield "push_to_visible_p99_s", float(np.quantile(waits, 0.99)), "s"
        yield "push_to_visible_loaded_p50_s", float(np.quantile(bench.loaded_waits(), 0.5)), "s"
