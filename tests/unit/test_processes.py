"""What is read of /proc, from a tree made by the test: odd names, threads and processes that come and go, sockets."""

import os
import shutil

import pytest

from collectors.base import CommOnly
from collectors.processes import TICK_NS, process, processes
from collectors.snapshot.process import SnapshotProcess
from collectors.snapshot.socket import SnapshotSocket
from collectors.top.process import TopProcess


class Proc:
    """A /proc of our own."""

    def __init__(self, root):
        self.root = root
        (root / "stat").write_text("cpu 1 2 3\nbtime 1700000000\n")

    def add(self, pid, comm="shop", user=0, system=0, started=1234, io=(0, 0), switches=None):
        home = self.root / str(pid)
        home.mkdir(exist_ok=True)
        words = f"S 1 {'0 ' * 9}{user} {system} 0 0 20 0 {len(switches or {})} 0 {started} 0 7"
        (home / "stat").write_text(f"{pid} ({comm}) {words}\n")
        (home / "io").write_text(f"rchar: 1\nread_bytes: {io[0]}\nwrite_bytes: {io[1]}\n")
        (home / "cmdline").write_bytes(b"shop\0--token\0secret\0")
        shutil.rmtree(home / "task", ignore_errors=True)
        for tid, (voluntary, involuntary) in (switches or {pid: (0, 0)}).items():
            (home / "task" / str(tid)).mkdir(parents=True)
            text = f"Name:\tx\nvoluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t{involuntary}\n"
            (home / "task" / str(tid) / "status").write_text(text)
        return home


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


@pytest.mark.parametrize("comm", ["shop", "a) b", "((", ") S 1 2", "kworker/0:1"])
def test_a_name_may_hold_anything(proc, comm):
    proc.add(7, comm, user=3, system=4, started=99)
    found = process(7, proc.root)
    assert (found.comm, found.state, found.ppid, found.started_ticks) == (comm, "S", 1, 99)
    assert (found.user_ns, found.system_ns) == (3 * TICK_NS, 4 * TICK_NS)
    assert process(8, proc.root) is None
    assert [each.pid for each in processes(proc.root)] == [7]


def grown(top, pid):
    (row,) = (row for row in top.collect(2.0).to_pylist() if row["pid"] == pid)
    return row


def test_growth_is_what_came_since_the_last_look(proc):
    top = TopProcess(CommOnly(), proc.root)
    proc.add(7, user=100, system=50, io=(4096, 8192), switches={7: (10, 1), 8: (20, 2)})
    top.start()
    # A thread has ended, another one is new.
    proc.add(7, user=103, system=51, io=(4096, 9192), switches={7: (15, 1), 9: (3, 4)})
    row = grown(top, 7)
    assert (row["user_ns"], row["system_ns"]) == (3 * TICK_NS, TICK_NS)
    assert row["cpu_percent"] == pytest.approx(4 * TICK_NS / 2e9 * 100)
    assert (row["read_bytes"], row["written_bytes"]) == (0, 1000)
    assert (row["switches"], row["involuntary_switches"]) == (5 + 7, 4)
    # The same number, another process: all of it is new.
    proc.add(7, user=5, started=9999, switches={7: (2, 0)})
    row = grown(top, 7)
    assert (row["user_ns"], row["switches"]) == (5 * TICK_NS, 2)
    assert grown(top, 7)["user_ns"] == 0


def test_a_snapshot_reads_arguments_only_when_asked(proc):
    home = proc.add(7, started=500)
    (home / "exe").symlink_to("/usr/bin/shop (deleted)")
    (row,) = SnapshotProcess(CommOnly(), proc=proc.root).take().to_pylist()
    assert row["executable"] == "/usr/bin/shop (deleted)"
    assert row["started"] == f"2023-11-14T22:13:{20 + 500 * TICK_NS // 1_000_000_000:02d}.000Z"
    assert "arguments" not in row
    (row,) = SnapshotProcess(CommOnly(), arguments=True, proc=proc.root).take().to_pylist()
    assert row["arguments"] == "shop --token secret"


def test_an_executable_may_have_any_name(proc):
    (proc.add(7) / "exe").symlink_to(os.fsdecode(b"/tmp/caf\xe9"))
    (row,) = SnapshotProcess(CommOnly(), proc=proc.root).take().to_pylist()
    assert row["executable"] == "/tmp/caf\ufffd"


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def test_sockets_are_read_by_namespace_and_owner(proc):
    line = "   {}: {} {} {} 0000000A:0000000B 00:00000000 00000000  1000        0 {} 1 0\n"
    for pid, namespace, inodes in ((7, 4026531840, [11, 12]), (8, 4026531840, [12]), (9, 4026532000, [])):
        home = proc.add(pid, f"p{pid}")
        (home / "ns").mkdir()
        (home / "ns" / "net").symlink_to(f"net:[{namespace}]")
        (home / "fd").mkdir()
        for at, inode in enumerate(inodes):
            (home / "fd" / str(at)).symlink_to(f"socket:[{inode}]")
        (home / "fd" / "9").symlink_to("/dev/null")
    first, other = proc.root / "7" / "net", proc.root / "9" / "net"
    first.mkdir()
    other.mkdir()
    v4, nobody = "0100007F:1F90", "00000000:0000"
    mapped = "0000000000000000FFFF00000100007F:0050"
    (first / "tcp").write_text(HEAD + line.format(0, v4, nobody, "0A", 11) + line.format(1, v4, v4, "06", 0))
    (first / "tcp6").write_text(HEAD + line.format(0, mapped, "0" * 24 + "01000000:0035", "01", 12))
    (other / "udp").write_text(HEAD + line.format(0, nobody, nobody, "07", 13))
    rows = SnapshotSocket(CommOnly(), proc=proc.root).take().to_pylist()
    columns = ("protocol", "state", "local", "peer", "pid", "comm", "pids", "network_namespace")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("tcp", "listen", "127.0.0.1:8080", "0.0.0.0:0", 7, "p7", "7", 4026531840),
        ("tcp", "time_wait", "127.0.0.1:8080", "127.0.0.1:8080", 0, "", "", 4026531840),
        ("tcp6", "established", "127.0.0.1:80", "[::1]:53", 7, "p7", "7,8", 4026531840),
        ("udp", "unconnected", "0.0.0.0:0", "0.0.0.0:0", 0, "", "", 4026532000),
    ]
    assert {(row["uid"], row["send_queue_bytes"], row["receive_queue_bytes"]) for row in rows} == {(1000, 10, 11)}
