"""Pyroscope's own clients, unchanged, against the push endpoint: what they measured arrives under its names."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.ingest_process import serving

pytestmark = pytest.mark.services
PROGRAMS = Path(__file__).parents[1] / "programs"


@pytest.fixture(scope="module")
def server(broker, tmp_path_factory):
    """One endpoint for the module."""
    with serving(broker, tmp_path_factory.mktemp("ingest"), f"clients{os.getpid()}.") as running:
        yield running


def until_rows(server, service, wanted, timeout_s=30.0):
    """Return {type: {leaf function: sum}} once the topic holds every wanted type."""
    deadline = time.monotonic() + timeout_s
    while True:
        rows = server.rows(service)
        found = {}
        for row in rows:
            of_type = found.setdefault(row["type"], {})
            of_type[row["stack"][-1]] = of_type.get(row["stack"][-1], 0) + row["value"]
        if wanted <= found.keys():
            return rows, found
        assert time.monotonic() < deadline, f"{wanted - found.keys()} missing; {server.log.read_text()[-500:]}"
        time.sleep(0.2)


def test_python(server, unique):
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "pyroscope_python.py")],
        env={**os.environ, "PYROSCOPE_SERVER_ADDRESS": server.url, "PYROSCOPE_APPLICATION_NAME": unique},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    rows, found = until_rows(server, unique, {"process_cpu"})
    cpu = found["process_cpu"]
    assert cpu["spend_three"] / (cpu["spend_three"] + cpu["spend_one"]) == pytest.approx(0.75, abs=0.1), done.stderr
    for row in rows:
        assert (row["version"], row["unit"], row["period"]) == ("v1.1", "nanoseconds", 10_000_000)
        assert abs(time.time_ns() - row["time_ns"]) < 120e9
    assert any(row["stack"][-2:] == ["main", "spend_three"] for row in rows)


def test_go(server, unique, tmp_path):
    binary = tmp_path / "program"
    subprocess.run(["go", "build", "-o", binary, "."], cwd=PROGRAMS / "pyroscope_go", check=True, timeout=280)
    done = subprocess.run(
        [binary],
        env={**os.environ, "PYROSCOPE_SERVER_ADDRESS": server.url, "PYROSCOPE_APPLICATION_NAME": unique},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "failed to upload" not in done.stdout + done.stderr
    wanted = {"process_cpu", "alloc_objects", "alloc_space", "inuse_objects", "inuse_space", "goroutine",
              "mutex_contentions", "mutex_delay", "block_contentions", "block_delay"}  # fmt: skip
    rows, found = until_rows(server, unique, wanted)
    assert found.keys() == wanted
    cpu = found["process_cpu"]
    assert cpu["main.spendHot"] > 0.8 * sum(cpu.values())
    assert 0.7e9 < cpu["main.spendHot"] < 2.5e9
    # Every allocation was seen: 17 slices of a MB that live to the end, then 13 that do not.
    assert found["alloc_objects"]["main.wasteBytes"] >= 13
    assert found["alloc_space"]["main.wasteBytes"] >> 20 == 13
    kept = [row for row in rows if row["type"] == "inuse_space" and row["stack"][-1] == "main.keepBytes"]
    assert max(row["value"] for row in kept) >> 20 == 17
    waited = [row for row in rows if row["type"] == "mutex_delay" and "main.contend" in row["stack"]]
    assert sum(row["value"] for row in waited) > 10_000_000
    assert {(row["version"], row["namespace"]) for row in rows} == {("v1.1", "shop")}
