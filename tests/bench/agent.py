"""What the agent costs on a busy node: both CPUs busy, 20,000 context switches a second between them.

Twice: as it is shipped, where its CPU budget makes it sample once it has seen what such a node costs, and with the
budget switched off, all collectors at full effort. The load runs at nice 19: at nice 0, on Linux 6.18, its threads,
which wake each other, were seen to keep other tasks of their CPU waiting for 20 s.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collectors.bpf import kernel
from collectors.bpf.loader import load
from deploy.broker import Broker, free_port
from streams import topics_admin

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
SWITCHES_PER_S = 20_000
WARM_S, SETTLED_S, MEASURED_S, LOOK_S = 12.0, 120.0, 60.0, 10.0


@contextmanager
def agent(directory: Path, **settings: str) -> Iterator[tuple[int, int]]:
    """Run a broker and an agent with default collectors; yields its (pid, port of metrics) once it collects."""
    broker = Broker(directory / "kafka", free_port(), free_port(), heap="256m")
    broker.start()
    port = free_port()
    environment = {
        **os.environ,
        "PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS": broker.address,
        "PERFSTREAM_SPOOL_DIRECTORY": str(directory / "spool"),
        "PERFSTREAM_HTTP_PORT": str(port),
        "MALLOC_ARENA_MAX": "2",
        **settings,
    }
    process = None
    try:
        asyncio.run(topics_admin.apply({"bootstrap_servers": broker.address}))
        with (directory / "agent.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "deploy.cli", "agent"], env=environment, stderr=log)
        deadline = time.monotonic() + 120
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the agent does not run: {(directory / 'agent.log').read_text()[-1000:]}")
            time.sleep(0.2)
        yield process.pid, port
    finally:
        if process is not None:
            process.terminate()
            process.wait(20)
        broker.stop()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError:
        return False
    # The budget may well be exceeded: that is what the load is for. A collector that does not run would be cheap.
    if why := json.loads(body)["checks"]["collectors"]:
        raise SystemExit(f"the agent is not well: {why}")
    return True


def process_seconds(pid: int) -> tuple[float, float]:
    """Return (user, system) CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def program_runs(pid: int) -> Counter[str]:
    """Return the ``seconds`` and ``runs`` of all BPF programs that a process holds, by the kernel's own account.

    Those of a program that has been closed meanwhile are gone.
    """
    found = {}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = dict(line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if "run_time_ns" in lines:
            found[lines["prog_id"]] = int(lines["run_time_ns"]) / 1e9, int(lines["run_cnt"])
    return Counter(seconds=sum(each[0] for each in found.values()), runs=sum(each[1] for each in found.values()))


def account_ns() -> float:
    """Return what the kernel's account says that a run of a program costs that does nothing.

    The account is for being measured only: it reads the clock twice each run, and most of this is that.
    """
    with load(HERE / "nothing.bpf.c") as programs:
        programs.attach()
        time.sleep(5)
        stats = programs.stats()
        return stats.run_time_ns / max(1, stats.run_cnt)


def told(port: int, metric: str) -> dict[str, float]:
    """Return a metric of the agent by collector."""
    # That one alone: all of them would be work for the agent, which is measured.
    url = f"http://127.0.0.1:{port}/metrics?name[]=perfstream_agent_{metric}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(rf'^perfstream_agent_{metric}{{collector="(\w+)"}} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def memory_mb(pid: int, name: str) -> float:
    """Return a memory figure of ``/proc/PID/status`` in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"no {name} in the status of {pid}")


def context_switches() -> int:
    """Return how many context switches the machine has made."""
    return next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("ctxt"))


@contextmanager
def busy(directory: Path, seconds: float) -> Iterator[None]:
    """Keep every CPU busy and switching."""
    program = directory / "switcher"
    subprocess.run(["gcc", "-O2", "-pthread", "-o", str(program), str(HERE / "switcher.c")], check=True)
    cpus = kernel.online_cpus()
    load = [
        subprocess.Popen(
            ["nice", "-n", "19", str(program), str(cpu), str(SWITCHES_PER_S // len(cpus)), str(seconds)],
            stdout=subprocess.DEVNULL,
        )
        for cpu in cpus
    ]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def cost(warm_s: float, **settings: str) -> Iterator[tuple[str, float, str]]:
    """Yield what an agent with these settings costs under the reference load, ``warm_s`` after the load began."""
    with tempfile.TemporaryDirectory(prefix="perfstream-bench-") as name:
        directory = Path(name)
        with agent(directory, **settings) as (pid, port), busy(directory, warm_s + MEASURED_S + 30):
            time.sleep(warm_s)
            stats = kernel.enable_stats()
            began, (user, system), programs = time.monotonic(), process_seconds(pid), program_runs(pid)
            switches = context_switches()
            cores = []  # of the programs, by their own account, which the budget goes by
            for _ in range(round(MEASURED_S / LOOK_S)):
                time.sleep(LOOK_S)
                cores.append(sum(told(port, "kernel_cores").values()))
            elapsed = time.monotonic() - began
            user_after, system_after = process_seconds(pid)
            spent = program_runs(pid)
            switches = context_switches() - switches
            nothing = account_ns()
            os.close(stats)
            spent.subtract(programs)
            parts = {
                "user": user_after - user,
                "system": system_after - system,
                "programs": float(spent["seconds"]),
            }
            yield "cpu_percent", sum(parts.values()) / elapsed * 100, "% of one core"
            for part, seconds in parts.items():
                yield f"cpu_percent_{part}", seconds / elapsed * 100, "% of one core"
            yield "cpu_percent_programs_told", sum(cores) / len(cores) * 100, "% of one core"
            yield "cpu_percent_of_the_account", spent["runs"] * nothing / 1e9 / elapsed * 100, "% of one core"
            yield "program_runs_per_s", spent["runs"] / elapsed, "1/s"
            for collector, effort in told(port, "effort").items():
                if effort < 1:
                    yield f"effort_{collector}", effort, "of 1; 0 given up"
            yield "reference_switches_per_s", switches / elapsed, "1/s"
            yield "rss_mb", memory_mb(pid, "VmRSS"), "MB"
            yield "rss_peak_mb", memory_mb(pid, "VmHWM"), "MB"


def figures() -> Iterator[tuple[str, float, str]]:
    """Every figure of this module."""
    for name, value, unit in cost(SETTLED_S):
        yield f"agent_{name}", value, unit
    for name, value, unit in cost(WARM_S, PERFSTREAM_AGENT_BUDGET_PERCENT="100"):
        yield f"agent_full_effort_{name}", value, unit
