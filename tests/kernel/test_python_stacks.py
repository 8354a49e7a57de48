"""py-spy beside the CPU profile: with which rights, how many, for how long, and what is said when it cannot be."""

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from collectors.interpreted import Interpreted
from collectors.privileges import KEPT
from collectors.profile.python import MAX_PROCESSES, PythonStacks
from collectors.settings import AgentOptions
from collectors.spool import Spool
from streams.schema import codec
from streams.schema.errors import KernelError
from streams.schema.stacks import split
from tests.kernel.known import PROGRAMS, Known, children_of, started, until
from tests.kernel.test_privileges import NOBODY, OTHER, agent, as_the_unit_does, rights

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"  # the system's: other users may start it, too
SPLIT = PROGRAMS / "split" / "split.py"
MOST = 1 << KEPT["CAP_SYS_PTRACE"] | 1 << KEPT["CAP_DAC_READ_SEARCH"]


def children(parent):
    """Return the py-spy processes of one parent."""
    return children_of(parent).get("py-spy", [])


@contextlib.contextmanager
def waiting(count, program=PYTHON):
    """Processes of Python that do nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Known(program, SPLIT, 0)).pid for _ in range(count)]


def of(pid, parent):
    """Return the py-spy processes that look at one process."""
    return [run for run in children(parent) if argument(run, "--pid") == str(pid)]


def argument(pid, name):
    """Return what a py-spy was started with, "" when it has ended."""
    arguments = []
    with contextlib.suppress(OSError):
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def ask(source, pids, seconds=1):
    """Hand over an interval in which all of these were busy, and say how long the next one is."""
    until_ns = time.time_ns() + seconds * 10**9
    return source.exchange(np.array(pids, np.uint64), np.full(len(pids), 10**11, np.int64), until_ns)


@pytest.mark.alone  # py-spy and the agent on one side, the program on the other: each needs a CPU
def test_an_agent_with_the_units_rights_names_another_users_functions(service, tmp_path, monkeypatch):
    (tmp_path / "spool").mkdir()
    os.chown(tmp_path / "spool", int(NOBODY), int(NOBODY))
    monkeypatch.setenv("PERFSTREAM_AGENT_COLLECTORS", "python,profile_cpu")
    health, held = {}, set()
    prefix = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups")
    with (
        Known(PYTHON, SPLIT, 10_000, service=service, prefix=prefix) as program,
        agent(tmp_path, as_the_unit_does(), health, PERFSTREAM_AGENT_INTERVAL_S="2") as pid,
    ):
        assert health["collectors"] == "", health
        program.go()
        run = until(lambda: of(program.pid, pid))[0]
        held = until(lambda: {one for one in rights(run) if one[3] == MOST})
        runs = {run}
        until(lambda: runs.update(of(program.pid, pid)) or len(runs) == 4)  # so that three have ended
        cores = re.compile(r'^perfstream_agent_kernel_cores\{collector="python"\} ([0-9.e-]+)$', re.MULTILINE)
        port = next(part for part in environment(pid) if part.startswith("PERFSTREAM_HTTP_PORT=")).partition("=")[2]
        until(lambda: float(cores.search(metrics(port))[1]) > 0)
    # Who is not root cannot lower its bounds, and with "no new privileges" they are nobody's to reach.
    assert {one[1:] for one in held} == {(MOST, MOST, MOST, "1")}
    spool = Spool(tmp_path / "spool")
    decoded = [codec.decode(message.headers, message.value) for _, message in spool.take(10_000, 1 << 30)]
    spool.close()
    rows = [row for schema, _, batch in decoded if schema == "profile" for row in batch.to_pylist()]
    mine = [row for row in rows if row["service"] == service]
    leaves = {split(row["stack"]["frames"])[-1].function for row in mine}
    assert leaves & {"seven_parts", "three_parts"}
    assert {row["type"] for row in mine} == {"cpu"}


def environment(pid):
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_only_so_many_processes_at_a_time_and_none_is_left():
    interpreted = Interpreted()
    with waiting(MAX_PROCESSES + 2) as pids, started(PythonStacks(interpreted, 20.0, 60.0, most_cost=1.0)) as python:
        assert interpreted.source is python
        assert ask(python, pids, 60) == {}
        until(lambda: len(children(os.getpid())) == MAX_PROCESSES)
        running = set(children(os.getpid()))
        assert {argument(run, "--rate") for run in running} == {"20"}
        python.relieve(AgentOptions(python_hz=20.0), 0.5)
        began = time.monotonic()
        assert ask(python, pids[:1], 60) == {}  # the next interval, early: what runs is given up at once
        until(lambda: len(now := children(os.getpid())) == 1 and not running & set(now))
        assert time.monotonic() - began < 5
        assert argument(children(os.getpid())[0], "--rate") == "10"
        assert python.stats().told_ns > 0
    assert children(os.getpid()) == []
    assert interpreted.source is None


def test_a_program_that_py_spy_cannot_read_is_left_alone(tmp_path):
    copied = tmp_path / "python3"
    copied.write_bytes(Path("/bin/sleep").read_bytes())
    copied.chmod(0o755)
    with (
        subprocess.Popen([copied, "60"]) as other,
        waiting(1) as pids,
        started(PythonStacks(Interpreted(), 19.0, interval_s=2.0)) as python,
    ):
        try:
            ask(python, [other.pid], 2)
            until(lambda: python._known.get(other.pid) and python._known.get(other.pid).again_s)
            ask(python, [other.pid, *pids], 2)
            until(lambda: len(children(os.getpid())) == 1)
            assert argument(children(os.getpid())[0], "--pid") == str(pids[0])
            assert python.collect(0, 1) is None
        finally:
            other.kill()


def test_a_process_that_costs_too_much_is_left_alone():
    with waiting(1) as pids, started(PythonStacks(Interpreted(), 19.0, 1.0, most_cost=0.0)) as python:
        ask(python, pids)
        process = until(lambda: python._known.get(pids[0]))
        until(lambda: process.again_s > time.monotonic() + 60)
        ask(python, pids)
        until(lambda: not children(os.getpid()), 5)


def test_one_that_does_not_end_is_killed(tmp_path):
    stubborn = tmp_path / "py-spy"
    stubborn.write_text("#!/bin/sh\ntrap '' INT\nwhile :; do sleep 1; done\n")
    stubborn.chmod(0o755)
    with waiting(1) as pids, started(PythonStacks(Interpreted(), 19.0, 1.0, str(stubborn))) as python:
        ask(python, pids)
        first = until(lambda: children(os.getpid()))[0]
        until(lambda: first not in children(os.getpid()), 5)
        assert ask(python, pids) == {}
        assert python.collect(0, 1) is None


def test_what_cannot_be_run_is_said(tmp_path):
    broken = tmp_path / "py-spy"
    broken.write_text("no program")
    broken.chmod(0o755)
    with waiting(1) as pids, started(PythonStacks(Interpreted(), 19.0, 1.0, str(broken))) as python:
        ask(python, pids)
        until(lambda: python._failed)
        with pytest.raises(RuntimeError, match="py-spy cannot be run"):
            python.collect(0, 1)


def test_without_py_spy_or_the_right_it_is_one_line(monkeypatch, tmp_path):
    collector = PythonStacks(Interpreted(), 19.0, binary=str(tmp_path / "py-spy"))
    with pytest.raises(KernelError) as error:
        collector.start()
    collector.close()
    assert str(error.value) == "py-spy is not there: pip install 'perfstream[python]'"
    code = (
        "from collectors.interpreted import Interpreted; from collectors.profile.python import PythonStacks; "
        "PythonStacks(Interpreted(), 19.0).start()"
    )
    done = subprocess.run(
        ["capsh", "--drop=cap_sys_ptrace", "--", "-c", f"exec {sys.executable} -c '{code}'"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].endswith("CAP_SYS_PTRACE is needed to read the memory of Python processes")
