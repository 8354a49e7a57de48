"""What the agent costs on a busy node: both CPUs busy, 20,000 context switches a second between them.

Twice: as it is shipped, where its CPU budget makes it sample once it has seen what such a node costs, and with the
budget switched off, all collectors at full effort. The load runs at nice 19: at nice 0, on Linux 6.18, its threads,
which wake each other, were seen to keep other tasks of their CPU waiting for 20 s.
"""

from __future__ import annotations

import asyncio
import json
import os
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
from deploy.broker import Broker, free_port
from streams import topics_admin

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
SWITCHES_PER_S = 20_000
WARM_S, SETTLED_S, MEASURED_S = 12.0, 120.0, 60.0


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


def program_seconds(pid: int) -> Counter[str]:
    """Return the run time of each BPF program that a process holds, by the kernel's own account."""
    seconds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = dict(line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if "run_time_ns" in lines:
            seconds[lines["prog_id"].strip()] += int(lines["run_time_ns"]) / 1e9
    return seconds


def told_percent(port: int) -> float:
    """Return what the programs say that they cost, which is what the budget goes by, in percent of one core.

    The kernel's own account is higher: keeping it adds some 30 to 80 ns to each run.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return (
        sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("perfstream_agent_kernel_cores")) * 100
    )


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
            began, (user, system), programs = time.monotonic(), process_seconds(pid), program_seconds(pid)
            switches = context_switches()
            time.sleep(MEASURED_S)
            elapsed = time.monotonic() - began
            user_after, system_after = process_seconds(pid)
            spent = program_seconds(pid)
            switches = context_switches() - switches
            os.close(stats)
            told = told_percent(port)
            spent.subtract(programs)
            parts = {
                "user": user_after - user,
                "system": system_after - system,
                "programs": float(sum(spent.values())),
            }
            yield "cpu_percent", sum(parts.values()) / elapsed * 100, "% of one core"
            for part, seconds in parts.items():
                yield f"cpu_percent_{part}", seconds / elapsed * 100, "% of one core"
            yield "cpu_percent_programs_told", told, "% of one core"
            yield "reference_switches_per_s", switches / elapsed, "1/s"
            yield "rss_mb", memory_mb(pid, "VmRSS"), "MB"
            yield "rss_peak_mb", memory_mb(pid, "VmHWM"), "MB"


def figures() -> Iterator[tuple[str, float, str]]:
    """Every figure of this module."""
    for name, value, unit in cost(SETTLED_S):
        yield f"agent_{name}", value, unit
    for name, value, unit in cost(WARM_S, PERFSTREAM_AGENT_BUDGET_PERCENT="100"):
        yield f"agent_full_effort_{name}", value, unit
