"""fsslower: every slow operation of a prime number on a file system that is slow on purpose, and no fast one."""

import errno
from collections import Counter

from collectors.trace.fsslower import THRESHOLD_NS, FsSlower
from collectors.wanted import Wanted
from tests.kernel.known import Bpftrace, Known, Taken, started

MS, OPENS, READS, WRITES, FSYNCS = 15, 5, 13, 11, 7


def test_every_slow_operation_is_told_and_bpftrace_agrees(gadgets, service, workloads, tmp_path):
    calls = ("read", "preadv", "write", "pwrite64", "openat", "fsync", "fdatasync")
    second = "".join(
        f"""
        tracepoint:syscalls:sys_enter_{call} /comm == "perfgadgets"/ {{ @since[tid] = nsecs; }}
        tracepoint:syscalls:sys_exit_{call} /@since[tid]/ {{
            if (nsecs - @since[tid] >= 10000000) {{ @["{call}"] = count(); }}
            delete(@since[tid]);
        }}"""
        for call in calls
    )
    with started(FsSlower(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(gadgets, "slow", tmp_path, MS, OPENS, READS, WRITES, FSYNCS, service=service) as program:
            program.run()
            taken = Taken().take(collector)
    assert taken.lost == 0
    mine = taken.of(
        comm="perfgadgets", kind="fsslower"
    )  # the server that is a child of it waits, too, but for a device
    assert {row["pid"] for row in mine} == {program.pid}
    assert {(row["service"], row["comm"], row["uid"]) for row in mine} == {(service, "perfgadgets", 0)}
    assert all(THRESHOLD_NS <= row["latency_ns"] < 5_000_000_000 for row in mine)
    # On a busy machine one or another of those that are twice as many may have waited long for its CPU.
    assert sum(row["detail"] == f"{tmp_path}/fast" for row in mine) < 5
    mine = [row for row in mine if row["detail"] != f"{tmp_path}/fast"]
    assert all(row["latency_ns"] >= MS * 1_000_000 for row in mine)
    told = Counter((row["detail"], row["result"], tuple(sorted(dict(row["attributes"]).items()))) for row in mine)
    slow = f"{tmp_path}/slow"
    assert told == {
        (slow, 0, (("filesystem", "fuse"), ("operation", "open"))): OPENS,
        (slow, 0, (("bytes", "600"), ("filesystem", "fuse"), ("operation", "read"))): READS,
        (slow, 0, (("bytes", "400"), ("filesystem", "fuse"), ("operation", "write"))): WRITES,
        (slow, -errno.EIO, (("filesystem", "fuse"), ("operation", "fsync"))): FSYNCS,
    }
    seen = trace.maps["@"]
    assert seen["openat"] >= OPENS
    assert seen["preadv"] >= (READS + 1) // 2
    assert seen["write"] + seen["pwrite64"] >= WRITES
    assert seen["fsync"] + seen["fdatasync"] >= FSYNCS
    assert sum(seen[call] for call in ("openat", "preadv", "write", "pwrite64", "fsync", "fdatasync")) < 5 + (
        OPENS + (READS + 1) // 2 + WRITES + FSYNCS
    )


def test_the_threshold_is_the_callers(gadgets, service, workloads, tmp_path):
    wanted = Wanted(min_latency_ns=2 * MS * 1_000_000)
    with (
        started(FsSlower(workloads, wanted=wanted)) as collector,
        Known(gadgets, "slow", tmp_path, MS, 1, 1, 1, 1, service=service) as program,
    ):
        program.run()
        taken = Taken().take(collector)
    # On a busy machine one may have taken twice as long.
    assert all(row["latency_ns"] >= wanted.min_latency_ns for row in taken.of(pid=program.pid))
    assert len(taken.of(pid=program.pid)) < 4
