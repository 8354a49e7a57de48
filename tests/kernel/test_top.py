"""The top gadgets: known work of a prime number of events is in the rows of its process, and nothing else is."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from collectors.top.blockio import TopBlockIo
from collectors.top.ebpf import TopEbpf
from collectors.top.file import TopFile
from collectors.top.process import TopProcess
from collectors.top.syscalls import TopSyscalls
from collectors.top.tcp import TopTcp
from collectors.wanted import Wanted
from tests.kernel import known as programs
from tests.kernel.disk import loop_device
from tests.kernel.known import Bpftrace, Known, started


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return programs.build(programs.PROGRAMS / "moves.c", tmp_path_factory.mktemp("moves") / "perfmoves")


def rows(gadget, **fields):
    """Return the rows of this interval that have these values."""
    found = gadget.collect(1.0).to_pylist()
    return [row for row in found if all(row[name] == value for name, value in fields.items())]


TURNS = 101


def test_reads_and_writes_are_counted_by_process_and_file(moves, service, workloads, tmp_path):
    path = tmp_path / "a file"
    second = 'tracepoint:syscalls:sys_exit_write /comm == "perfmoves" && args->ret == 10/ { @ = count(); }'
    with started(TopFile(workloads)) as gadget, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(moves, "files", path, TURNS, service=service) as program:
            program.run()
            mine = {row["file"]: row for row in rows(gadget, pid=program.pid)}
            assert gadget.lost() == 0
            assert rows(gadget, pid=program.pid) == []  # the next interval is another one
    original, copy = mine.pop(str(path)), mine.pop(f"{path}.copy")
    assert all(name.startswith("/usr/lib") for name in mine)  # the loader of the program read its library
    assert original["inode"] == path.stat().st_ino
    assert {name: original[name] for name in ("service", "comm", "uid")} == {
        "service": service,
        "comm": "perfmoves",
        "uid": 0,
    }
    numbers = ("reads", "writes", "read_bytes", "written_bytes")
    # The copies read the original, too.
    assert tuple(original[name] for name in numbers) == (5 * TURNS, 3 * TURNS, (60 + 12) * TURNS, 60 * TURNS)
    assert tuple(copy[name] for name in numbers) == (0, 2 * TURNS, 0, 12 * TURNS)
    assert trace.maps["@"] == 2 * TURNS  # of which half went to the pipe


MESSAGES, SIZE, BACK = 103, 1009, 13


def ss(port):
    """Return (bytes sent, bytes received) of the connection with this local port: the kernel's own books."""
    command = ["ss", "-tinH", "sport", "=", f":{port}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", out)[1]) for name in ("bytes_sent", "bytes_received"))


@pytest.mark.parametrize(("family", "address"), [(4, "127.0.0.1:{}"), (6, "[::1]:{}")])
def test_bytes_are_counted_by_connection_and_end(moves, service, workloads, family, address):
    with (
        started(TopTcp(workloads)) as gadget,
        Known(moves, "tcp", family, MESSAGES, SIZE, BACK, service=service) as program,
    ):
        said = program.run()
        mine = rows(gadget, service=service)
        assert gadget.lost() == 0
        told = ss(said["client_port"])
    server, client = address.format(said["port"]), address.format(said["client_port"])
    columns = ("local", "peer", "sent_bytes", "received_bytes", "sends", "receives")
    assert {row["pid"] for row in mine} == {program.pid}
    assert sorted(tuple(row[name] for name in columns) for row in mine) == sorted(
        [
            (client, server, MESSAGES * SIZE, MESSAGES * BACK, MESSAGES, MESSAGES),
            (server, client, MESSAGES * BACK, MESSAGES * SIZE, MESSAGES, MESSAGES),
        ]
    )
    assert told == (MESSAGES * SIZE, MESSAGES * BACK)


GOOD, BAD = 10_007, 499


def test_calls_errors_and_time_are_counted_by_call(moves, service, workloads):
    second = """
        tracepoint:raw_syscalls:sys_exit /comm == "perfmoves"/ { @calls[args->id] = count(); }
        tracepoint:raw_syscalls:sys_exit /comm == "perfmoves" && args->ret < 0/ { @errors[args->id] = count(); }
    """
    with started(TopSyscalls(workloads)) as gadget, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(moves, "calls", GOOD, BAD, service=service) as program:
            said = program.run()
            mine = {row["syscall"]: row for row in rows(gadget, pid=program.pid)}
            assert gadget.lost() == 0
    assert (mine["getppid"]["calls"], mine["getppid"]["errors"]) == (GOOD, 0)
    assert mine["close"]["errors"] == BAD
    assert 0 < mine["getppid"]["time_ns"] + mine["close"]["time_ns"] < said["took_ns"] * 2
    assert mine["getppid"]["service"] == service
    getppid, close = "110", "3"
    assert (trace.maps["@calls"][getppid], trace.maps["@errors"][close]) == (GOOD, BAD)


def test_what_finds_no_room_is_counted(moves, service, workloads):
    with Known(moves, "calls", GOOD, BAD, service=service) as program:
        small = TopSyscalls(workloads, rows=1, wanted=Wanted(pid=program.pid))
        whole = TopSyscalls(workloads, wanted=Wanted(pid=program.pid))
        with started(small, whole):
            program.run()
            some, everything = small.collect(1.0), whole.collect(1.0)
            lost = small.lost()
            assert whole.lost() == 0
    assert set(pc.unique(everything.column("pid")).to_pylist()) == {program.pid}  # filtered in the kernel
    total = pc.sum(everything.column("calls")).as_py()
    assert total > GOOD + BAD
    assert 0 < lost < total
    assert pc.sum(some.column("calls")).as_py() + lost == total


@pytest.mark.parametrize(
    ("wanted", "there"),
    [(Wanted(comm="perfmoves"), True), (Wanted(uid=0), True), (Wanted(comm="other"), False), (Wanted(uid=7), False)],
)
def test_names_and_users_are_filtered_in_the_kernel(moves, service, workloads, wanted, there):
    with (
        started(TopSyscalls(workloads, wanted=wanted)) as gadget,
        Known(moves, "calls", 7, 0, service=service) as program,
    ):
        program.run()
        assert bool(rows(gadget, pid=program.pid)) is there


WRITES = 97


def disk(name):
    """Return (reads, bytes read, bytes written) of a device: the kernel's own books, in sectors of 512 bytes.

    Not its writes: each of ours must reach the disk, and its flush counts as another one there.
    """
    words = [int(word) for word in Path(f"/sys/class/block/{name}/stat").read_text().split()]
    return np.array([words[0], words[2] * 512, words[6] * 512])


def test_block_io_is_counted_by_process_device_and_operation(known, service, workloads, tmp_path):
    with (
        loop_device(tmp_path, WRITES * 4096) as device,
        started(TopBlockIo(workloads)) as gadget,
        Known(known, "write", device, WRITES, service=service) as program,
    ):
        name = device.rsplit("/", 1)[-1]
        before = disk(name)
        said = program.run()
        after = disk(name)
        mine = {row["operation"]: row for row in rows(gadget, pid=program.pid, device=name)}
        assert gadget.lost() == 0
    assert mine.keys() >= {"read", "write"}
    for each in ("read", "write"):
        assert (mine[each]["requests"], mine[each]["io_bytes"]) == (WRITES, WRITES * 4096)
        assert mine[each]["service"] == service
    assert 0 < mine["write"]["time_ns"] <= said["took_ns"]
    assert (after - before).tolist() == [WRITES, WRITES * 4096, WRITES * 4096]


CPU_MS, SWITCHES, BYTES = 211, 307, 1 << 20


@pytest.fixture
def on_disk():
    """A folder on a disk, which the usual one for temporary files may not be."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


def test_a_process_is_shown_with_what_it_used(moves, service, workloads, on_disk):
    path = on_disk / "written"
    gadget = TopProcess(workloads)
    with Known(moves, "work", CPU_MS, SWITCHES, path, BYTES, service=service) as program:
        gadget.start()
        program.run()
        (mine,) = rows(gadget, pid=program.pid)
        (after,) = rows(gadget, pid=program.pid)
    assert (mine["service"], mine["comm"], mine["uid"], mine["threads"]) == (service, "perfmoves", 0, 1)
    assert CPU_MS * 1e6 - 20e6 <= mine["user_ns"] + mine["system_ns"] < CPU_MS * 1e6 + 150e6
    assert mine["cpu_percent"] == pytest.approx((mine["user_ns"] + mine["system_ns"]) / 1e9 * 100)
    assert SWITCHES <= mine["switches"] - mine["involuntary_switches"] <= SWITCHES + 20
    assert BYTES <= mine["written_bytes"] <= BYTES + 65536
    assert mine["rss_bytes"] > 500_000
    assert after["user_ns"] == after["written_bytes"] == after["switches"] == 0


def test_a_process_that_began_in_the_interval_counts_whole(moves, service, workloads, tmp_path):
    gadget = TopProcess(workloads)
    gadget.start()
    with Known(moves, "work", 101, 3, tmp_path / "written", 4096, service=service) as program:
        program.run()
        (mine,) = rows(gadget, pid=program.pid)
    assert mine["user_ns"] + mine["system_ns"] >= 80e6


def test_every_bpf_program_is_shown_with_its_runs_and_its_owner(moves, service, workloads):
    script = 'tracepoint:syscalls:sys_enter_getppid /comm == "perfmoves"/ { @ = count(); }'
    gadget = TopEbpf(workloads)
    with started(TopTcp(workloads)) as loaded:
        try:
            before = {name: each.run_cnt for name, each in loaded._programs.stats_by_program().items()}
            gadget.start()
            with Bpftrace(script) as trace, Known(moves, "calls", GOOD, 0, service=service) as program:
                program.run()
                found = gadget.collect(1.0).to_pylist()
                later = gadget.collect(1.0).to_pylist()
                bpftrace = trace._process.pid
            # Its program for the call; the others are of its intervals. Whoever else calls getppid runs it, too.
            theirs = max((row for row in found if row["pid"] == bpftrace), key=lambda row: row["runs"])
            after = {name: each.run_cnt for name, each in loaded._programs.stats_by_program().items()}
        finally:
            gadget.close()
    assert trace.maps["@"] == GOOD
    assert GOOD <= theirs["runs"] < GOOD + 100
    assert theirs["comm"] == "bpftrace"
    (again,) = (row["runs"] for row in later if row["id"] == theirs["id"])
    assert again < 100
    assert theirs["type"] in ("tracepoint", "perf_event")
    assert 20 < theirs["mean_ns"] == pytest.approx(theirs["run_time_ns"] / theirs["runs"])
    assert theirs["maps"] >= 1
    assert theirs["map_bytes"] > 0 < theirs["memory_bytes"]
    mine = {row["program"]: row for row in found if row["pid"] == os.getpid()}
    for name, runs in after.items():
        row = mine[name.removeprefix("tp_btf__")[:15]]
        assert row["type"] == "tracing"
        assert row["map_bytes"] > 1_000_000  # two maps of 8192 rows
        assert 0 <= row["runs"] <= runs - before[name]


COMMAND = (sys.executable, "-m", "deploy.cli", "gadget", "top")


def test_the_command_prints_a_block_for_each_interval_and_a_summary(moves, service):
    arguments = ("tcp", "--service", service, "--interval", "0.4", "-o", "json", "--sort", "received_bytes")
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "watching tcp" in process.stderr.readline()
        with Known(moves, "tcp", 4, MESSAGES, SIZE, BACK, service=service) as program:
            program.run()
            found = [json.loads(process.stdout.readline()) for _ in range(2)]
            process.send_signal(2)
            out, err = process.communicate(timeout=15)
    assert process.returncode == 0, err
    found += map(json.loads, out.splitlines())
    assert sum(row["received_bytes"] for row in found) == MESSAGES * (SIZE + BACK)
    assert found[0]["received_bytes"] >= found[1]["received_bytes"]
    assert all(0 < row["interval_ns"] < 30e9 and row["time"].endswith("Z") for row in found)
    assert err.splitlines()[-1].endswith("2 rows, 0 lost")


def test_a_terminal_is_refreshed_in_place_and_not_overrun():
    """Twelve lines of eighty columns: cleared once, then written over."""
    pid, terminal = pty.fork()
    if pid == 0:
        # readline, which pytest loads, has put a size of its own into the environment, and a worker has it from there.
        arguments = [*COMMAND, "process", "--interval", "0.1", "--sort", "rss_bytes"]
        given = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
        os.execve(sys.executable, arguments, given)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
    seen = b""
    with contextlib.suppress(OSError):  # so ends a terminal that nobody writes to any more
        while read := os.read(terminal, 65536):
            before, seen = seen.count(HOME), seen + read
            if before < 4 <= seen.count(HOME):
                os.write(terminal, b"\x03")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
    assert seen.count(b"\x1b[2J") == 1
    _, *screens = seen.replace(b"\x1b[K", b"").split(HOME)
    for screen in screens[1:-1]:
        shown = re.sub(rb"\x1b\[[0-9;]*[mJ]", b"", screen).decode().splitlines()
        assert len(shown) <= 12
        assert max(map(len, shown)) <= 80
        assert shown[1].split()[:3] == ["SERVICE", "PID", "COMM"]
    assert b"intervals" in screens[-1]


HOME = b"\x1b[H"


def test_a_wrong_column_is_told_before_anything_is_loaded():
    for arguments in (("--sort", "nonsense"), ("-o", "columns=pid,nonsense")):
        done = subprocess.run([*COMMAND, "file", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "read_bytes" in done.stderr
