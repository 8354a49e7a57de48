"""``perfstream up`` as a user runs it: real processes, real kernel data, a clean end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from collectors.catalogue import chosen

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.services]

COMMAND = (sys.executable, "-m", "deploy.cli")


@pytest.fixture
def running(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "up", "--free-ports", "--workdir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    yield process, tmp_path
    if process.poll() is None:
        process.kill()
    process.communicate()


def wait_for(condition, process, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"up ended with {process.returncode}: {process.stdout.read()}")
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    pytest.fail(f"did not happen in {seconds} s")
    return None


def children_of(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1]) == pid:
                    found.append(int(entry.name))
            except (OSError, IndexError):
                continue
    return found


def perfstream(directory, *arguments):
    return subprocess.run(
        [*COMMAND, *arguments], env={**os.environ, "PERFSTREAM_WORKDIR": str(directory)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_up_measures_this_machine_restarts_what_dies_and_leaves_nothing_behind(running):
    process, directory = running
    wait_for((directory / "endpoints.json").exists, process, 90)
    burner = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"], env={**os.environ, "OTEL_SERVICE_NAME": "e2e"}
    )
    try:

        def seen():
            done = perfstream(directory, "profile", "top", "--type", "cpu", "--service", "e2e", "--format", "json")
            return done.returncode == 0 and json.loads(done.stdout)

        rows = wait_for(seen, process, 60)
        assert {"function", "self", "total"} <= set(rows[0])
        assert sum(row["self"] for row in rows) > 0
    finally:
        burner.kill()
        burner.wait()
    push = json.loads((directory / "endpoints.json").read_text())["push"]
    body = urllib.request.Request(f"{push}/ingest?name=pushed&sampleRate=100", data=b"main;work 101\n", method="POST")
    with urllib.request.urlopen(body, timeout=20) as answer:
        assert answer.status == 200

    def pushed():
        chosen = ("--type", "process_cpu", "--service", "pushed")
        done = perfstream(directory, "profile", "top", *chosen, "--format", "json")
        return done.returncode == 0 and json.loads(done.stdout)

    rows = wait_for(pushed, process, 30)
    assert (rows[0]["function"], rows[0]["self"]) == ("work", 101 * 10_000_000)
    children = children_of(process.pid)
    assert len(children) == 6  # kafka, store, sink, worker, ingest, agent
    sink = next(pid for pid in children if b"sink" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    os.kill(sink, signal.SIGKILL)
    wait_for(lambda: len(set(children_of(process.pid)) - set(children)) == 1, process, 20)

    children = children_of(process.pid)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 0, output
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not (directory / "endpoints.json").exists()
    done = perfstream(directory, "profile", "top")
    assert done.returncode == 1
    assert "no running stack" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_capabilities_all_but_the_collectors_run_and_the_status_says_why(tmp_path):
    process = subprocess.Popen(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all",
         *COMMAND, "up", "--free-ports", "--workdir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        lines = []
        for line in process.stdout:  # ends when the status says it, or with the process
            lines.append(line)
            if "run as root" in line:
                break
        said = " ".join("".join(lines).split())
        assert f"{', '.join(entry.name for entry in chosen(()))} off: no permission" in said
        assert "CAP_PERFMON and CAP_BPF missing" in said
        for stage in ("kafka", "store", "sink", "worker", "ingest"):
            assert any(line.split()[:2] == [stage, "well"] for line in lines)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_second_stack_in_the_same_directory_is_refused_in_one_line(tmp_path):
    import fcntl

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [*COMMAND, "up", "--free-ports", "--workdir", str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "already runs" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
