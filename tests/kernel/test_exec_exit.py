"""exec and exit: every one of a prime number, with who, what and how it ended."""

import errno
import os
import signal
from collections import Counter

import pytest

from collectors.trace.exec import Exec
from collectors.trace.exit import Exit
from tests.kernel.known import Bpftrace, Known, Taken, started, until

RUNS, FAILING = 997, 13


@pytest.mark.alone  # a browser that starts its own file is called "exe", too
def test_every_exec_and_exit_is_told_and_bpftrace_agrees(known, service, workloads):
    second = """
        tracepoint:syscalls:sys_exit_execve /comm == "perfknown" && args->ret < 0/ { @failed[args->ret] = count(); }
        tracepoint:sched:sched_process_exec /comm == "exe"/ { @ran[str(args->filename)] = count(); }
        tracepoint:sched:sched_process_exit /comm == "exe" || comm == "perfknown"/ { @ended = count(); }
    """
    execs, exits = Taken(), Taken()
    with started(Exec(workloads), Exit(workloads)) as (one, other), Bpftrace(second) as trace:
        with Known(known, "exec", RUNS, FAILING, service=service) as program:
            program.go()
            # Intervals end while it runs: nothing may be lost or told twice.
            until(lambda: execs.take(one).of(comm="exe") and exits.take(other).of(comm="exe"))
            program.answer()
            program.end()
        execs.take(one)
        exits.take(other)
        parent = program.pid
    mine = [row for row in execs.rows if row["ppid"] == parent]
    assert execs.lost == exits.lost == 0
    assert len(mine) == RUNS
    assert len({row["pid"] for row in mine}) == RUNS
    failed = [row for row in mine if row["result"]]
    assert {(r["result"], r["detail"], r["comm"]) for r in failed} == {
        (-errno.ENOENT, "/nonexistent/perfstream", "perfknown")
    }
    assert len(failed) == FAILING
    good = [row for row in mine if not row["result"]]
    assert {(r["detail"], r["comm"], r["uid"], r["kind"]) for r in good} == {("/proc/self/exe", "exe", 0, "exec")}
    # Most of them lived less than a millisecond: the identity is what they inherited.
    assert Counter(r["service"] for r in good) == {service: RUNS - FAILING}
    assert all(1_000 < r["latency_ns"] < 1_000_000_000 for r in mine)
    times = [row["time_ns"] for row in mine]
    assert times == sorted(times)

    ended = [row for row in exits.rows if row["ppid"] == parent]
    assert {row["pid"] for row in ended} == {row["pid"] for row in mine}
    assert Counter((r["detail"], os.waitstatus_to_exitcode(r["result"])) for r in ended) == {
        ("code 0", 0): RUNS - FAILING,
        ("code 7", 7): FAILING,
    }
    assert Counter(r["service"] for r in ended if r["comm"] == "exe") == {service: RUNS - FAILING}
    started_at = {row["pid"]: row["time_ns"] for row in mine}
    assert all(0 < row["time_ns"] - started_at[row["pid"]] < 10_000_000_000 for row in ended)
    assert all(row["latency_ns"] >= row["time_ns"] - started_at[row["pid"]] for row in ended)

    assert trace.maps["@failed"] == {str(-errno.ENOENT): FAILING}
    assert trace.maps["@ran"] == {"/proc/self/exe": RUNS - FAILING}
    assert trace.maps["@ended"] == RUNS + 1


def test_a_process_ends_once_whatever_its_threads_do(known, service, workloads):
    codes, killed, many = 11, 7, 211
    taken = Taken()
    with (
        started(Exit(workloads)) as collector,
        Known(known, "exit", codes, killed, many, 5, service=service) as program,
    ):
        program.run()
        mine = [row for row in taken.take(collector).rows if row["ppid"] == program.pid]
    assert taken.lost == 0
    assert Counter(row["detail"] for row in mine) == {"code 3": codes, "SIGKILL": killed, "code 5": many}
    assert {os.waitstatus_to_exitcode(row["result"]) for row in mine} == {3, 5, -signal.SIGKILL}
    assert all(20_000 < row["latency_ns"] < 5_000_000_000 for row in mine)


def test_what_finds_no_room_in_the_ring_is_counted(known, service, workloads):
    tiny, large = Exec(workloads, ring_bytes=4096), Exec(workloads)
    little, all_of_it = Taken(), Taken()
    # The large one sees all that the tiny one sees of others: it starts before and is read after it.
    with started(large, tiny), Known(known, "flood", RUNS, service=service) as program:
        program.run()
        little.take(tiny)
        all_of_it.take(large)
    flood = {"pid": program.pid, "result": -errno.ENOENT}
    mine, others = len(little.of(**flood)), len(all_of_it.rows) - len(all_of_it.of(**flood))
    assert len(all_of_it.of(**flood)) == RUNS
    assert all_of_it.lost == 0
    assert little.lost > RUNS // 10
    # What others did meanwhile may be among the lost, too.
    assert RUNS <= mine + little.lost <= RUNS + others
