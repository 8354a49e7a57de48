"""The agent with the few rights that it keeps: every collector runs, and names what belongs to other users."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from collectors import catalogue
from collectors.bpf.compile import default_cache
from collectors.privileges import KEPT
from collectors.profile.syscalls import SyscallLatency
from collectors.spool import Spool
from deploy.broker import free_port
from streams.schema import codec
from streams.schema.stacks import split
from tests.kernel.known import Known, started

ROOT = Path(__file__).parents[2]
MASK = sum(1 << number for number in KEPT.values())
OTHER, NOBODY = "1", "65534"


def unit_capabilities():
    text = (ROOT / "deploy" / "systemd" / "perfstream-agent.service").read_text()
    return re.search(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)[1].split()


def as_the_unit_does():
    """Another user than root, with the unit's rights from the begin and no way to more."""
    rights = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in unit_capabilities())])
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
            f"--bounding-set={rights}", f"--inh-caps={rights}", f"--ambient-caps={rights}")  # fmt: skip


@contextlib.contextmanager
def agent(directory, before, health, **more):
    """Run an agent without Kafka: what it publishes stays in its spool."""
    port = free_port()
    environment = {
        **os.environ, "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "PERFSTREAM_HTTP_PORT": str(port),
        "PERFSTREAM_SPOOL_DIRECTORY": str(directory / "spool"), "PERFSTREAM_AGENT_INTERVAL_S": "1",
        "PERFSTREAM_AGENT_BUDGET_PERCENT": "100", "PERFSTREAM_CACHE": str(default_cache().parent.resolve()),
        **more,
    }  # fmt: skip
    command = [*before, sys.executable, "-m", "deploy.cli", "agent"]
    with (directory / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log, cwd=ROOT)
    try:
        deadline = time.monotonic() + 90
        while not health:
            assert process.poll() is None, (directory / "agent.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
            health.update(checks(port))
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def checks(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return json.load(answer)["checks"]
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)["checks"]
    except OSError:
        return {}


def rights(pid):
    """Return the distinct (bounding, permitted, effective, ambient, no new privileges) of a process's threads."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = dict(re.findall(r"^(\w+):\s*(\S+)", (task / "status").read_text(), re.MULTILINE))
        numbers = (int(status[name], 16) for name in ("CapBnd", "CapPrm", "CapEff", "CapAmb"))
        found.add((*numbers, status["NoNewPrivs"]))
    return found


@pytest.fixture
def foreign(known):
    """The known program of another user, in a directory that only that user may enter."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "closed"
        home.mkdir(mode=0o700)
        shutil.copy(known, home / "foreign")
        for path in (home, home / "foreign"):
            os.chown(path, int(OTHER), int(OTHER))
        Path(directory).chmod(0o711)
        yield home / "foreign"


@pytest.mark.parametrize("before", [(), as_the_unit_does()], ids=["root", "unit"])
def test_it_keeps_a_few_rights_and_measures_everything_with_them(foreign, service, tmp_path, before):
    if before:
        # What the unit's StateDirectory and CacheDirectory are.
        (tmp_path / "spool").mkdir()
        os.chown(tmp_path / "spool", int(NOBODY), int(NOBODY))
    health = {}
    prefix = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups")
    with (
        Known(foreign, "burn", 1500, service=service, prefix=prefix) as program,
        agent(tmp_path, before, health) as pid,
    ):
        foreign.unlink()  # while it runs
        assert health["collectors"] == "", health
        program.run()
        subprocess.run(["true"], check=True)
        held = rights(pid)
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) > 3
    assert held == {(MASK, MASK, MASK, MASK if before else 0, "1")}
    assert "rights that it does not need" not in (tmp_path / "agent.log").read_text()
    spool = Spool(tmp_path / "spool")
    decoded = [codec.decode(message.headers, message.value) for _, message in spool.take(10_000, 1 << 30)]
    spool.close()
    seen = {interval.collector for _, interval, _ in decoded}
    busy = {"profile_cpu", "offcpu", "runqlat", "syscall", "exec", "exit"}
    assert busy <= seen <= {entry.name for entry in catalogue.ALL}
    rows = [row for schema, _, batch in decoded if schema == "profile" for row in batch.to_pylist()]
    mine = [row for row in rows if row["service"] == service]
    frames = {frame.function for row in mine for frame in split(row["stack"]["frames"])}
    # From the environment and the deleted executable of another user, and from the kernel's symbols.
    assert {"main", "five", "three", "two"} <= frames
    kernels = {
        frame.function for row in rows for frame in split(row["stack"]["frames"]) if frame.function[-4:] == "_[k]"
    }
    assert {"do_syscall_64_[k]", "el0_svc_[k]"} & kernels


def test_what_programs_say_they_cost_is_what_the_kernel_says(known, service, run_time, workloads):
    calls = 200_003
    with Known(known, "calls", 3, 1000, calls, service=service) as program:
        collector = SyscallLatency(workloads)
        with started(collector):
            program.run()
            cost = collector.stats()
    assert cost.run_cnt > 2 * calls
    assert cost.run_time_ns / 2 < cost.told_ns < cost.run_time_ns * 2


@pytest.mark.alone  # the account is the machine's: whoever wants it has it kept for all
def test_costs_are_told_without_the_kernels_account(known, service, workloads):
    assert int(Path("/proc/sys/kernel/bpf_stats_enabled").read_text()) == 0
    with Known(known, "calls", 3, 1000, 100_003, service=service) as program:
        collector = SyscallLatency(workloads)
        with started(collector):
            program.run()
            cost = collector.stats()
    assert cost.run_time_ns == 0
    assert cost.told_ns > 100_003 * 50
