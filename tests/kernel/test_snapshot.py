"""snapshot process and socket: a process and its sockets, also in a network namespace of its own; ss agrees."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from collectors.snapshot.process import SnapshotProcess
from collectors.snapshot.socket import SnapshotSocket
from tests.kernel import known as programs
from tests.kernel.known import Known

COMMAND = (sys.executable, "-m", "deploy.cli", "gadget", "snapshot")


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return programs.build(programs.PROGRAMS / "moves.c", tmp_path_factory.mktemp("moves") / "perfmoves")


def of(pid, snapshot):
    return [row for row in snapshot.take().to_pylist() if row["pid"] == pid]


def test_a_process_is_shown_as_it_is(moves, service, workloads):
    before = time.time()
    with Known(moves, "threads", 7, service=service) as program:
        program.run()
        (row,) = of(program.pid, SnapshotProcess(workloads))
        (asked,) = of(program.pid, SnapshotProcess(workloads, arguments=True))
    wanted = {
        "service": service,
        "comm": "perfmoves",
        "ppid": os.getpid(),
        "uid": 0,
        "threads": 8,
        "state": "sleeping",
        "executable": str(moves),
    }
    assert row.items() >= wanted.items()
    assert row["version"]
    assert row["rss_bytes"] > 500_000
    started = datetime.fromisoformat(row["started"]).timestamp()
    assert before - 1.5 < started < time.time() + 1.5  # the time of boot has whole seconds
    assert "arguments" not in row
    assert asked["arguments"] == f"{moves} threads 7"
    assert of(program.pid, SnapshotProcess(workloads)) == []


def test_every_process_is_there(workloads):
    rows = SnapshotProcess(workloads).take().to_pylist()
    there = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    assert len(rows) == len({row["pid"] for row in rows})
    assert len({row["pid"] for row in rows} ^ there) < 10


# In a network namespace of its own nothing else is there.
ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


@pytest.mark.parametrize(("family", "address"), [(4, "127.0.0.1:{}"), (6, "[::1]:{}")])
def test_sockets_of_another_network_namespace_are_shown_with_their_owner(moves, service, workloads, family, address):
    with Known(moves, "tcp", family, 3, 5, 7, service=service, prefix=ALONE) as program:
        said = program.run()
        namespace = Path(f"/proc/{program.pid}/ns/net").stat().st_ino
        rows = [row for row in SnapshotSocket(workloads).take().to_pylist() if row["network_namespace"] == namespace]
        listed = subprocess.run(
            ["nsenter", "--net", "--target", str(program.pid), "ss", "-tuanHe"],
            capture_output=True,
            text=True,
            check=True,
        )
    suffix = "6" if family == 6 else ""
    server, client, udp = (address.format(said[name]) for name in ("port", "client_port", "udp_port"))
    nobody = "[::]:0" if family == 6 else "0.0.0.0:0"
    assert Counter(tuple(row[name] for name in ("protocol", "state", "local", "peer")) for row in rows) == Counter(
        [
            (f"tcp{suffix}", "listen", server, nobody),
            (f"tcp{suffix}", "established", client, server),
            (f"tcp{suffix}", "established", server, client),
            (f"udp{suffix}", "unconnected", udp, nobody),
        ]
    )
    for row in rows:
        assert (row["service"], row["pid"], row["comm"], row["uid"]) == (service, program.pid, "perfmoves", 0)
        assert row["pids"] == str(program.pid)
    inodes = {word.removeprefix("ino:") for word in listed.stdout.split() if word.startswith("ino:")}
    assert {str(row["inode"]) for row in rows} == inodes


def test_the_command_filters_and_prints(moves, service):
    with Known(moves, "tcp", 4, 3, 5, 7, service=service) as program:
        said = program.run()
        arguments = ("socket", "--service", service, "-o", "json", "--sort", "state")
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
        table = subprocess.run(
            [*COMMAND, "process", "--pid", str(program.pid), "-o", "columns=pid,arguments"],
            capture_output=True,
            text=True,
            check=True,
        )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["state"] for row in rows] == ["established", "established", "listen", "unconnected"]
    assert rows[2]["local"] == f"127.0.0.1:{said['port']}"
    assert [line.split() for line in table.stdout.splitlines()] == [
        ["PID", "ARGUMENTS"],
        [str(program.pid), *f"{moves} tcp 4 3 5 7".split()],
    ]
    assert table.stderr == "1 rows\n"
