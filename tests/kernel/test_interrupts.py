"""softirq, hardirq and futex: counts against the kernel's own books, bpftrace and known waits."""

import os
import re
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from collectors.profile.futex import FutexLatency
from collectors.profile.hardirq import HardIrqLatency
from collectors.profile.softirq import SoftIrqLatency
from collectors.wanted import Wanted
from tests.kernel import known as programs
from tests.kernel.known import Bpftrace, Known, Taken, started, taken


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return programs.build(programs.PROGRAMS / "moves.c", tmp_path_factory.mktemp("moves") / "perfmoves")


def summed(rows, what="count"):
    total = Counter()
    for row in rows:
        total[row["operation"]] += row[what]
    return total


def softirqs():
    """Return how often each vector has run, as /proc/softirqs has it."""
    lines = Path("/proc/softirqs").read_text().splitlines()[1:]
    return Counter({line.split(":")[0].strip(): sum(map(int, line.split()[1:])) for line in lines})


def interrupts():
    """Return how often each numbered interrupt has come, as /proc/interrupts has it."""
    found = Counter()
    lines = Path("/proc/interrupts").read_text().splitlines()
    cpus = len(lines[0].split())
    for line in lines[1:]:
        if number := re.match(r"\s*(\d+):", line):
            found[number[1]] = sum(map(int, line.split()[1 : cpus + 1]))
    return found


PACKETS = 997


@pytest.mark.alone
def test_soft_interrupts_are_those_of_the_kernels_own_books(workloads):
    second = "tracepoint:irq:softirq_exit /args->vec == 3/ { @ = count(); }"
    with started(SoftIrqLatency(workloads)) as collector, Bpftrace(second) as trace:
        taken(collector)
        before = softirqs()
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b,
        ):
            a.bind(("127.0.0.1", 0))
            for _ in range(PACKETS):
                b.sendto(b"x", a.getsockname())
                a.recv(1)
        after = softirqs()
        found = taken(collector)
    counts = summed(found.rows)
    assert found.lost == 0
    assert {(row["service"], row["probe"], row["pod"]) for row in found.rows} == {("kernel", "softirq", "")}
    grown = after - before
    assert grown["NET_RX"] >= PACKETS
    for vector in ("NET_RX", "TIMER", "SCHED"):
        # The books are read a moment later and earlier than the counts begin and end.
        assert grown[vector] <= counts[vector] <= grown[vector] + 100 + grown[vector] // 10
    assert trace.maps["@"] >= grown["NET_RX"]
    received = [row for row in found.rows if row["operation"] == "NET_RX"]
    assert 500 * PACKETS < sum(row["sum_ns"] for row in received) < 1_000_000 * PACKETS


WRITES = 211


@pytest.mark.alone
def test_device_interrupts_are_those_of_the_kernels_own_books(workloads):
    """Whatever device interrupts: the disk does, when writes must reach it."""
    with started(HardIrqLatency(workloads)) as collector:
        taken(collector)
        before = interrupts()
        with tempfile.NamedTemporaryFile(dir="/var/tmp", buffering=0) as file:
            for _ in range(WRITES):
                file.write(b"x" * 512)
                os.fdatasync(file.fileno())
        after = interrupts()
        found = taken(collector)
    counts = {operation.split()[0]: count for operation, count in summed(found.rows).items()}
    grown = after - before
    assert found.lost == 0
    busiest, often = grown.most_common(1)[0]
    assert often >= WRITES
    assert often <= counts[busiest] <= often + 100 + often // 10
    names = {row["operation"] for row in found.rows}
    actions = Path(f"/sys/kernel/irq/{busiest}/actions").read_text().strip()
    assert f"{busiest} {actions}" in names
    assert {row["service"] for row in found.rows} == {"kernel"}


WOKEN, TIMED_OUT, CHANGED, WAIT_NS = 101, 53, 499, 1_000_000


def test_every_wait_of_a_futex_is_counted_by_its_outcome(moves, service, workloads):
    second = """
        tracepoint:syscalls:sys_enter_futex /comm == "perfmoves"/ { @op[tid] = args->op & 127; }
        tracepoint:syscalls:sys_exit_futex /comm == "perfmoves"/ { @[@op[tid], args->ret] = count(); }
    """
    found = Taken()
    with started(FutexLatency(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(moves, "futex", WOKEN, TIMED_OUT, CHANGED, WAIT_NS, service=service) as program:
            program.go()
            time.sleep(0.05)
            found.take(collector)  # an interval ends in the middle
            said = program.answer()
            found.take(collector)
    mine = found.of(service=service)
    counts, sums = summed(mine), summed(mine, "sum_ns")
    assert found.lost == 0
    assert counts == {"wait woken": WOKEN, "wait timed out": TIMED_OUT, "wait_bitset changed": CHANGED}
    assert TIMED_OUT * WAIT_NS <= sums["wait timed out"] <= said["timed_out_ns"]
    assert sums["wait woken"] >= WOKEN * WAIT_NS * 9 // 10
    assert sums["wait_bitset changed"] < CHANGED * WAIT_NS
    assert {key: trace.maps["@"][key] for key in ("0,0", "0,-110", "9,-11")} == {
        "0,0": WOKEN,
        "0,-110": TIMED_OUT,
        "9,-11": CHANGED,
    }


def test_only_one_process_is_counted_when_that_is_asked_for(moves, service, workloads):
    with Known(moves, "futex", 3, 5, 7, 1000, service=service) as program:
        with started(FutexLatency(workloads, wanted=Wanted(pid=program.pid))) as collector:
            program.run()
            found = taken(collector)
        with started(FutexLatency(workloads, wanted=Wanted(pid=program.pid))) as collector:
            subprocess.run([moves, "futex", "3", "5", "7", "1000"], input=b"\n", check=True, capture_output=True)
            assert taken(collector).rows == []
    assert {row["service"] for row in found.rows} == {service}
    assert found.events == 15
