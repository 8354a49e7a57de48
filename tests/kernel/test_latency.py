"""runqlat, syscall, blockio: the counts and sums of known work, against the kernel's own books and bpftrace."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from collectors.profile.blockio import BlockLatency
from collectors.profile.runqlat import RunQueueLatency
from collectors.profile.syscalls import SyscallLatency
from streams.schema.histogram import lower_bound, width
from tests.kernel.disk import loop_device
from tests.kernel.known import Bpftrace, Known, Taken, started, taken, until


def check_histogram(rows):
    """What holds of every latency row, whatever it counted."""
    for row in rows:
        assert row["count"] == sum(row["counts"])
        assert row["buckets"] == sorted(set(row["buckets"]))
        low = lower_bound(np.array(row["buckets"], np.uint16))
        wide = width(np.array(row["buckets"], np.uint16))
        counts = np.array(row["counts"], np.uint64)
        assert int((low * counts).sum()) <= row["sum_ns"] <= int(((low + wide - 1) * counts).sum())
        assert int(low[-1]) <= row["max_ns"] < int(low[-1] + wide[-1])


def summed(rows, what="count"):
    total = Counter()
    for row in rows:
        total[row["operation"]] += row[what]
    return total


SLEEPS, SLEEP_NS, GETPPIDS = 499, 1_000_000, 10_007


def test_every_system_call_is_counted_over_intervals_and_bpftrace_agrees(known, service, workloads):
    second = 'tracepoint:raw_syscalls:sys_exit /comm == "perfknown"/ { @[pid, args->id] = count(); }'
    found = Taken()
    with started(SyscallLatency(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(known, "calls", SLEEPS, SLEEP_NS, GETPPIDS, service=service) as program:
            program.go()
            # The buffers swap under load.
            until(lambda: summed(found.take(collector).of(service=service))["clock_nanosleep"] >= SLEEPS)
            said = program.answer()
            found.take(collector)
    mine = found.of(service=service)
    assert found.lost == 0
    assert len({id(batch) for batch in found.batches}) > 2
    counts, sums = summed(mine), summed(mine, "sum_ns")
    assert counts["clock_nanosleep"] == SLEEPS
    assert counts["getppid"] == GETPPIDS
    assert SLEEPS * SLEEP_NS < sums["clock_nanosleep"] <= said["slept_ns"]
    assert max(row["max_ns"] for row in mine if row["operation"] == "getppid") < 100_000_000
    check_histogram(mine)
    assert {row["probe"] for row in mine} == {"syscall"}
    numbers = {"clock_nanosleep": 230, "getppid": 110}
    assert {n: trace.maps["@"][f"{program.pid},{nr}"] for n, nr in numbers.items()} == {n: counts[n] for n in numbers}


def test_sampled_calls_stand_for_all_of_them_and_say_so(known, service, workloads):
    calls, shift = 100_003, 4
    with Known(known, "calls", 3, SLEEP_NS, calls, service=service) as program:
        sampled = SyscallLatency(workloads, defines={"TARGET_TGID": program.pid})
        whole = SyscallLatency(workloads, defines={"TARGET_TGID": program.pid})
        with started(sampled, whole):
            sampled.set_sampling(shift)
            program.run()
            some, everything = taken(sampled), taken(whole)
    (few,) = (row for row in some.rows if row["operation"] == "getppid")
    (all_,) = (row for row in everything.rows if row["operation"] == "getppid")
    assert (few["period"], all_["period"], all_["count"]) == (1 << shift, 1, calls)
    assert few["count"] % (1 << shift) == 0
    # The draw is binomial: five standard errors, sqrt(calls * (2**shift - 1)), are allowed.
    assert 0 < abs(few["count"] - calls) < 5 * (calls * ((1 << shift) - 1)) ** 0.5
    check_histogram([few])
    assert some.lost == 0


def test_calls_that_find_no_room_are_counted(known, service, workloads):
    with Known(known, "calls", SLEEPS, SLEEP_NS, GETPPIDS, service=service) as program:
        whole = SyscallLatency(workloads, defines={"TARGET_TGID": program.pid})
        small = SyscallLatency(workloads, entries=5, defines={"TARGET_TGID": program.pid})
        with started(small, whole):
            program.run()
            little, everything = taken(small), taken(whole)
    assert everything.lost == 0
    assert little.lost > SLEEPS // 2
    assert sum(row["count"] for row in little.rows) == little.events
    assert little.events + little.lost == everything.events


def test_a_thread_that_ended_inside_a_call_leaves_nothing_behind(known, service, workloads):
    """The last call of a process does not return; the next process with its number must not be given that time."""
    found = Taken()
    with started(SyscallLatency(workloads)) as collector, Known(known, "reuse", 13, service=service) as program:
        program.run()
        found.take(collector)
    assert found.lost == 0
    assert summed(found.of(service=service))["wait4"] == 14
    assert not {"exit_group", "exit"} & summed(found.rows).keys()


SPINNERS, SPIN_MS = 3, 300


def schedstat(pid):
    """Return (time on the CPU, time waiting for it, times it was given it) of a process's only thread."""
    return [int(word) for word in Path(f"/proc/{pid}/schedstat").read_text().split()]


def test_run_queue_latency_equals_the_kernels_own_books_and_bpftrace(known, service, workloads):
    second = 'tracepoint:sched:sched_switch /args->next_comm == "perfknown"/ { @[args->next_pid] = count(); }'
    found = Taken()
    with started(RunQueueLatency(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(known, "contend", SPINNERS, SPIN_MS, service=service) as program:
            program.go()
            time.sleep(SPIN_MS / 1000)
            found.take(collector)  # an interval ends in the middle
            pids = program.answer()["pids"]
            found.take(collector)
            books = [schedstat(pid) for pid in (program.pid, *pids)]
    mine = found.of(service=service)
    count, total = sum(row["count"] for row in mine), sum(row["sum_ns"] for row in mine)
    waited, arrivals = sum(book[1] for book in books), sum(book[2] for book in books)
    assert found.lost == 0
    check_histogram(mine)
    # The parent was given the CPU before and while it forked; the last switches may come after the collect.
    assert abs(count - arrivals) <= 3 * (1 + len(pids))
    assert total == pytest.approx(waited, rel=0.05)
    assert total > (SPINNERS - 1) * SPIN_MS * 1_000_000  # three of one CPU: two wait while one runs
    # bpftrace goes on while they end: each is switched to a few times more.
    traced = sum(trace.maps["@"].get(str(pid), 0) for pid in (program.pid, *pids))
    assert -5 <= traced - count <= 3 * (1 + len(pids))


WRITES = 101


def test_every_request_of_a_block_device_is_counted(known, service, workloads, tmp_path):
    found = Taken()
    with (
        loop_device(tmp_path, WRITES * 4096) as device,
        started(BlockLatency(workloads)) as collector,
        Known(known, "write", device, WRITES, service=service) as program,
    ):
        said = program.run()
        found.take(collector)
    name = device.rsplit("/", 1)[-1]
    rows = [row for row in found.rows if row["operation"].startswith(f"{name} ")]
    counts = summed(rows)
    assert found.lost == 0
    assert counts[f"{name} write"] == WRITES
    assert counts[f"{name} read"] == WRITES, rows
    check_histogram(rows)
    written = [row for row in rows if row["operation"] == f"{name} write"]
    assert 10_000 * WRITES < sum(row["sum_ns"] for row in written) <= said["took_ns"]
    assert {row["service"] for row in written} == {service}
    # What the loop device wrote to the disk below it is the kernel's own.
    assert found.of(service="kthreadd")
