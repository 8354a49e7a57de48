"""open: every one of a prime number, by each of its calls, and what a flood of them loses."""

import errno
import os
from collections import Counter
from pathlib import Path

from collectors.trace.open import Open
from collectors.wanted import Wanted
from tests.kernel.known import Bpftrace, Known, Taken, started, until

OPENAT, OPEN, OPENAT2, CREAT, FAILED, RELATIVE = 211, 101, 97, 89, 499, 13
FLOOD = 500_003


def test_every_open_is_told_and_bpftrace_agrees(gadgets, service, workloads, tmp_path):
    second = """
        tracepoint:syscalls:sys_exit_open* /comm == "perfgadgets"/ { @[args->ret < 0 ? args->ret : 0] = count(); }
        tracepoint:syscalls:sys_exit_creat /comm == "perfgadgets"/ { @creat = count(); }
    """
    taken = Taken()
    with started(Open(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(
            gadgets, "open", tmp_path, OPENAT, OPEN, OPENAT2, CREAT, FAILED, RELATIVE, service=service
        ) as program:
            program.go()
            until(lambda: taken.take(collector).of(pid=program.pid))
            here = program.answer()["directory_fd"]
            taken.take(collector)
    mine = taken.of(pid=program.pid, kind="open")
    assert taken.lost == 0
    assert {(row["service"], row["comm"], row["uid"]) for row in mine} == {(service, "perfgadgets", 0)}
    assert all(row["ppid"] == os.getpid() and 100 < row["latency_ns"] < 1_000_000_000 for row in mine)
    told = Counter((row["detail"], row["result"], dict(row["attributes"])["flags"]) for row in mine)
    assert told["made", 0, "O_RDONLY|O_CLOEXEC"] == OPENAT
    assert told["made", 0, "O_RDWR|O_SYNC|O_APPEND"] == OPEN
    assert told["made by openat2", 0, "O_WRONLY|O_CREAT"] == OPENAT2
    assert told["made by creat", 0, "O_WRONLY|O_CREAT|O_TRUNC"] == CREAT
    assert told["made", -errno.ENOTDIR, "O_RDONLY|O_DIRECTORY"] == RELATIVE
    failed = [row["detail"] for row in mine if row["result"] == -errno.ENOENT]
    assert sorted(failed) == sorted(f"/nonexistent/perfstream-{number}" for number in range(FAILED))

    by_path = {row["detail"]: dict(row["attributes"]) for row in mine}
    fd = str(here + 1)  # the next one that is free
    assert by_path["made by openat2"] == {"flags": "O_WRONLY|O_CREAT", "mode": "0640", "resolve": "0x4", "fd": fd}
    assert by_path["made by creat"] == {"flags": "O_WRONLY|O_CREAT|O_TRUNC", "mode": "0604", "fd": fd}
    assert by_path["made"] == {"flags": "O_RDONLY|O_DIRECTORY", "directory_fd": str(here)}
    times = [row["time_ns"] for row in mine]
    assert times == sorted(times)

    results = Counter(str(row["result"]) for row in mine)
    assert results[str(-errno.ENOENT)] == FAILED
    assert trace.maps["@creat"] == CREAT + 1  # its own "made"
    assert trace.maps["@"] == {**results, "0": results["0"] - CREAT - 1}


def test_of_a_flood_each_open_is_a_row_or_lost(gadgets, service, workloads):
    with Known(gadgets, "flood", FLOOD, service=service) as program:
        collector = Open(workloads, wanted=Wanted(pid=program.pid))
        with started(collector):
            before = resident()
            program.run()
            batch = collector.collect(0, 0)
            more = resident() - before
            assert collector.memory_bytes() < 8 << 20
    rows = batch.batch
    assert rows.num_rows == batch.events > 1000
    assert rows.num_rows + batch.lost == FLOOD
    assert set(rows["pid"].to_pylist()) == {program.pid}
    told = zip(rows["detail"].to_pylist(), rows["result"].to_pylist(), strict=True)
    assert set(told) == {("/dev/null", 0), ("/nonexistent", -errno.ENOENT)}
    assert more < 200 << 20, f"{more} bytes more"


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
