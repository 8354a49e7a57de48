"""signal: every one of a prime number, with its sender, its target and what became of it."""

import errno
from collections import Counter

from collectors.trace.signal import Signal
from tests.kernel.known import Bpftrace, Known, Taken, started

SENT, IGNORED, FULL = 211, 101, 13


def test_every_signal_is_told_and_bpftrace_agrees(gadgets, service, workloads):
    second = """
        tracepoint:signal:signal_generate /comm == "perfgadgets"/ { @[args->sig, args->result] = count(); }
    """
    with started(Signal(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(gadgets, "signal", SENT, IGNORED, FULL, service=service) as program:
            child = program.run()["child"]
            taken = Taken().take(collector)
    assert taken.lost == 0
    mine = taken.of(pid=program.pid, kind="signal")
    assert {(row["service"], row["comm"], row["uid"]) for row in mine} == {(service, "perfgadgets", 0)}
    to = f"to perfgadgets ({child})"
    assert Counter((row["detail"], row["result"]) for row in mine) == {
        (f"SIGRTMIN {to}", 0): SENT,
        (f"SIGUSR2 {to}", 0): IGNORED,
        (f"SIGRTMIN+1 {to}", -errno.EAGAIN): FULL,
        (f"SIGKILL {to}", 0): 1,
    }
    told = {(of := dict(row["attributes"]))["signal"]: of for row in mine}
    whom = {"target_pid": str(child), "target_comm": "perfgadgets"}
    assert told == {
        "SIGRTMIN": {"signal": "SIGRTMIN", **whom, "outcome": "delivered", "from": "sigqueue"},
        "SIGUSR2": {"signal": "SIGUSR2", **whom, "outcome": "ignored", "from": "tkill", "target_tid": str(child)},
        "SIGRTMIN+1": {"signal": "SIGRTMIN+1", **whom, "outcome": "queue full", "from": "sigqueue"},
        "SIGKILL": {"signal": "SIGKILL", **whom, "outcome": "delivered", "from": "kill"},
    }
    # The end of the child is told by the kernel in its name.
    (ended,) = taken.of(pid=child, kind="signal")
    assert ended["detail"] == f"SIGCHLD to perfgadgets ({program.pid})"
    assert dict(ended["attributes"])["from"].startswith("kernel, code ")
    assert trace.maps["@"].items() >= {"34,0": SENT, "12,1": IGNORED, "35,3": FULL, "9,0": 1}.items()
