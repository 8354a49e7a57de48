"""``perfstream gadget`` as a person runs it: a process of its own, a known workload, what it prints."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.known import Known

COMMAND = (sys.executable, "-m", "deploy.cli", "gadget")


@contextmanager
def running(*arguments, waits_for):
    """Yield a gadget that has attached: it prints its heading (or says that it counts) only then."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stream = process.stderr if waits_for == "stderr" else process.stdout
        heading = stream.readline()
        assert heading, process.stderr.read()
        yield process, heading
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process):
    """Press Ctrl-C; return what it printed since, and its summary."""
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=15)
    assert time.monotonic() - began < 5
    assert process.returncode == 0, err
    return out, err


def numbers(summary):
    """Return the numbers of the last line: events, shown (when there is such), lost."""
    return [int(word.replace(",", "")) for word in summary.splitlines()[-1].split() if word[0].isdigit()]


def test_trace_exec_prints_every_exec_of_a_service_and_a_summary(known, service):
    runs, failing = 97, 13
    with running("trace", "exec", "--service", service, waits_for="stdout") as (process, heading):
        assert heading.split()[:3] == ["TIME", "SERVICE", "COMM"]
        with Known(known, "exec", runs, failing, service=service) as program:
            program.run()
            lines = [process.stdout.readline() for _ in range(runs + 1)]  # the workload's own start, too
            out, err = finish(process)
    assert out == ""
    assert sum("ENOENT" in line for line in lines) == failing
    assert all(service[:19] in line for line in lines)
    seen, shown, lost = numbers(err)
    assert (shown, lost) == (runs + 1, 0)
    assert seen >= shown


def test_trace_exec_shows_arguments_and_directories_when_asked(known, service):
    asked = ("trace", "exec", "--args", "--service", service, "--comm", "exe")
    with running(*asked, waits_for="stdout") as (process, heading):
        assert heading.split()[-1] == "ATTRIBUTES"
        with Known(known, "exec", 13, 5, service=service) as program:
            program.run()
            lines = [process.stdout.readline() for _ in range(8)]
            out, err = finish(process)
    assert out == ""
    assert all(f"cwd={Path.cwd()} args=known nothing" in line for line in lines)
    assert numbers(err) == [8, 8, 0]  # what does not go by this name is not even read


def test_trace_tcpconnect_json_is_what_the_collector_publishes(known, service):
    with subprocess.Popen(
        [*COMMAND, "trace", "tcpconnect", "-o", "json", "--service", service, "--failed", "--timeout", "8"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while not poll.poll(100):  # as JSON it has no heading: it has attached when it tells of a connect
            assert process.poll() is None
            with Known(known, "tcp", 0, 0, 1, 0, 0, 0, service=service) as program:
                program.run()
        with Known(known, "tcp", 23, 7, 11, 2, 5, 3, service=service) as program:
            program.run()
            out, err = process.communicate(timeout=30)
    rows = [row for row in map(json.loads, out.splitlines()) if row["pid"] == program.pid]
    assert len(rows) == 13, err
    assert {row["kind"] for row in rows} == {"tcpconnect"}
    assert {row["result"] for row in rows} == {-111}
    assert all(row["latency_ns"] > 0 and row["time"].endswith("Z") for row in rows)


def test_profile_syscall_shows_percentiles_and_bars(known, service):
    with (
        running("profile", "syscall", "--service", service, "-o", "json", waits_for="stderr") as (process, _),
        Known(known, "exec", 3, 0, service=service) as program,
    ):
        program.run()
        out, err = finish(process)
    rows = {row["operation"]: row for row in map(json.loads, out.splitlines())}
    assert rows["wait4"]["count"] == 3
    assert sum(rows["wait4"]["counts"]) == 3
    assert numbers(err)[-1] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trace", "nonsense"), "exec"),
        (("trace", "exec", "-o", "yaml"), "json"),
        (("trace", "exec", "--min-latency", "fast"), "250us"),
        (("trace", "open", "--args"), "exec on this node"),
        (("trace", "exec", "--args", "--cluster"), "agents do not collect arguments"),
        (("profile", "softirq", "--comm", "x"), "no process"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_loaded(arguments, says):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr


def test_without_capabilities_one_line_says_what_is_missing(tmp_path):
    nothing = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = subprocess.run(
        [*nothing, *COMMAND, "trace", "exec", "--timeout", "1"],
        capture_output=True, text=True, check=False, env={**os.environ, "PERFSTREAM_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "run as root" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
