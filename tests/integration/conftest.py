"""Fixtures of the service tests: a real store process for the session, a fresh database for each test."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.broker import Broker, free_port


@dataclass
class Store:
    """A running ``perfstream store``."""

    process: subprocess.Popen
    port: int
    observe_port: int
    path: Path
    log: Path
    tls: ssl.SSLContext | None = None

    @property
    def url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def dsn(self):
        """The address without a database; append ``/name``."""
        return self.url

    def post(self, query, body=b"", headers=None, timeout=60, **parameters):
        """POST a query (or with ``body`` its data); returns the answer's bytes."""
        from urllib.parse import urlencode

        if body:
            parameters["query"] = query
        data = body or query.encode()
        request = urllib.request.Request(f"{self.url}/?{urlencode(parameters)}", data=data, headers=headers or {})
        with urllib.request.urlopen(request, timeout=timeout, context=self.tls) as answer:
            return answer.read()

    def stop(self, timeout_s=8.0):
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def start_store(path, *, environ=None, port=None, wait_s=20.0, prefix=(), tls=None):
    """Start a store and wait until it answers; the caller stops it. ``prefix``: a command to run it in.

    ``tls``: how to speak to a store whose ``environ`` names a certificate.
    """
    port = port or free_port()
    observe_port = free_port()
    log = Path(f"{path}.log")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PERFSTREAM_")}
    environment |= {"PERFSTREAM_HTTP_PORT": str(observe_port), "MALLOC_ARENA_MAX": "2", **(environ or {})}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "deploy.cli", "store", "--path", str(path), "--port", str(port)],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment,
            cwd=Path(__file__).parents[2], start_new_session=True,
        )  # fmt: skip
    store = Store(process, port, observe_port, Path(path), log, tls)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the store ended at once: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"{store.url}/ping", timeout=2, context=tls) as answer:
                assert answer.read() == b"Ok.\n"
            return store
        time.sleep(0.03)
    process.kill()
    process.wait()
    raise RuntimeError(f"the store did not listen in {wait_s} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A real store for the whole session: ``.dsn``, ``.port``, ``.process``, ``.post(query)``."""
    running = start_store(tmp_path_factory.mktemp("store") / "data")
    yield running
    running.stop()


@pytest.fixture
def database(store, unique):
    """A fresh database on the store; dropped after the test. Its name."""
    store.post(f"CREATE DATABASE {unique}")
    yield unique
    store.post(f"DROP DATABASE IF EXISTS {unique} SYNC")


@pytest.fixture
def start(tmp_path):
    """Start stores of the test's own: ``start(name, environ=...)``; all are ended after the test."""
    running = []

    def begin(name="own", **options):
        one = start_store(tmp_path / name, **options)
        running.append(one)
        return one

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


@pytest.fixture(scope="session")
def gopprof(tmp_path_factory):
    """The executable of the Go program whose profiles are scraped; a missing Go fails here, it does not skip."""
    binary = tmp_path_factory.mktemp("go") / "gopprof"
    source = Path(__file__).parents[1] / "programs" / "gopprof"
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=source, check=True, timeout=280)
    return binary


@pytest.fixture
def own_broker(tmp_path):
    """A Kafka that a test may kill and start again."""
    instance = Broker(tmp_path / "kafka", free_port(), free_port(), heap="256m")
    instance.start()
    yield instance
    instance.stop()
