"""Pyroscope's own clients, unchanged, against the push endpoint: what they measured arrives under its names."""

import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.integration.client_programs import PROGRAMS, java_agent, java_classes, node_command
from tests.integration.ingest_process import serving

pytestmark = pytest.mark.services


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


def until_seen(server, service, function, timeout_s=60.0):
    """Return a service's rows once a function is among the frames."""
    deadline = time.monotonic() + timeout_s
    while True:
        rows = server.rows(service)
        if any(function in row["stack"] for row in rows):
            return rows
        assert time.monotonic() < deadline, f"{function} missing; {server.log.read_text()[-500:]}"
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
    cpu = [row for row in rows if row["type"] == "process_cpu"]
    # Within, not at its end alone: the runtime's preemption stands above it.
    hot = sum(row["value"] for row in cpu if "main.spendHot" in row["stack"])
    assert hot > 0.8 * sum(row["value"] for row in cpu)
    assert 0.7e9 < hot < 2.5e9
    # Every allocation was seen: 17 slices of a MB that live to the end, then 13 that do not.
    assert found["alloc_objects"]["main.wasteBytes"] >= 13
    assert found["alloc_space"]["main.wasteBytes"] >> 20 == 13
    kept = [row for row in rows if row["type"] == "inuse_space" and row["stack"][-1] == "main.keepBytes"]
    assert max(row["value"] for row in kept) >> 20 == 17
    waited = [row for row in rows if row["type"] == "mutex_delay" and "main.contend" in row["stack"]]
    assert sum(row["value"] for row in waited) > 10_000_000
    assert {(row["version"], row["namespace"]) for row in rows} == {("v1.1", "shop")}


def test_node(server, unique, tmp_path):
    done = subprocess.run(
        [*node_command(tmp_path), "12"],
        env={
            "PYROSCOPE_SERVER_ADDRESS": server.url, "PYROSCOPE_APPLICATION_NAME": unique,
            "PYROSCOPE_FLUSH_INTERVAL_MS": "500", "PYROSCOPE_WALL_COLLECT_CPU_TIME": "true",
            # CPU time goes to the sample that ends it, perhaps another function's: often, so that it is little.
            "PYROSCOPE_WALL_SAMPLING_INTERVAL_MICROS": "1000",
            "PYROSCOPE_HEAP_SAMPLING_INTERVAL_BYTES": "65536", "DEBUG": "pyroscope",
        },
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "rejected" not in done.stderr
    assert "Error sending" not in done.stderr
    wanted = {"process_cpu", "wall", "inuse_objects", "inuse_space"}
    rows, found = until_rows(server, unique, wanted)
    assert found.keys() == wanted
    # On a busy machine the client is late and leaves profiles out.
    split_seven_to_three(found["process_cpu"], "spendSeven", "spendThree", 400_000_000)
    assert found["wall"]["spendSeven"] > 300_000_000
    assert {(row["version"], row["namespace"]) for row in rows} == {("v1.1", "shop")}
    # V8 takes nearly every allocation as large as these, and counts what lives.
    newest = max(row["time_ns"] for row in rows if row["type"] == "inuse_space")
    kept = [
        row for row in rows if (row["type"], row["time_ns"], row["stack"][-1]) == ("inuse_space", newest, "keepBytes")
    ]
    assert sum(row["value"] for row in kept) >> 20 == 17
    for row in rows:
        assert abs(time.time_ns() - row["time_ns"]) < 120e9
        if row["type"] == "process_cpu":
            # As long as it was, not as it was wished.
            assert (row["unit"], 900_000 < row["period"] < 50_000_000) == ("nanoseconds", True)
    of_main = [row for row in rows if row["stack"][-1] == "spendSeven"]
    assert all(row["stack"][-2] == "main" for row in of_main)
    places = [frame.file for row in of_main for frame in row["frames"] if frame.function == "spendSeven"]
    assert set(places) == {str(tmp_path / "main.js")}


def test_java(server, unique, tmp_path):
    command = ["java", "-Xmx64m", "-XX:TieredStopAtLevel=1", f"-javaagent:{java_agent()}",
               "-cp", f"{java_classes(tmp_path)}:{java_agent()}", "Pushed", "13"]  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "PYROSCOPE_SERVER_ADDRESS": server.url, "PYROSCOPE_APPLICATION_NAME": unique,
        "PYROSCOPE_LABELS": "version=v1.1", "PYROSCOPE_FORMAT": "jfr", "PYROSCOPE_UPLOAD_INTERVAL": "1s",
    }  # fmt: skip
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            rows = until_seen(server, unique, "Pushed.after")
        finally:
            process.kill()
            said = process.communicate()[0]
    assert b"[ERROR]" not in said
    assert {row["type"] for row in rows} == {"process_cpu"}
    functions, namespaces = Counter(), Counter()
    for row in rows:
        assert (row["version"], row["unit"], row["period"]) == ("v1.1", "nanoseconds", 10_000_000)
        assert abs(time.time_ns() - row["time_ns"]) < 120e9
        functions[row["stack"][-1]] += row["value"]
        if row["stack"][-1].startswith("Split."):
            namespaces[row["namespace"]] += row["value"]
            assert "Pushed.main" in row["stack"]
    split_seven_to_three(functions, "Split.seven", "Split.three")
    # Labels that the program gives to a part of its work.
    split_seven_to_three(namespaces, "gold", "tin")


def split_seven_to_three(sums, seven, three, least=1_000_000_000):
    """Hold sums by name against the work: within three points, or what so few samples at 100 Hz can say.

    Nothing else may have done much of it.
    """
    both = sums[seven] + sums[three]
    print(seven, round(sums[seven] / both, 4), "of", both / 1e9, "s")
    assert both > least
    assert both > 0.7 * sum(sums.values()), sums
    chance = (0.7 * 0.3 * 10_000_000 / both) ** 0.5
    assert sums[seven] / both == pytest.approx(0.7, abs=max(0.03, 2.5 * chance)), sums
