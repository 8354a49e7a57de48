"""mount: every one of a prime number, the older calls and the newer ones, with what, where and the result."""

import errno
from collections import Counter

from collectors.trace.mount import Mount
from tests.kernel.known import Bpftrace, Known, Taken, started

MOUNTS, FAILED, MOVED = 53, 13, 7


def test_every_mount_is_told_and_bpftrace_agrees(gadgets, service, workloads, tmp_path):
    second = """
        tracepoint:syscalls:sys_exit_mount /comm == "perfgadgets"/ { @mount[args->ret] = count(); }
        tracepoint:syscalls:sys_exit_umount /comm == "perfgadgets"/ { @umount[args->ret] = count(); }
        tracepoint:syscalls:sys_exit_move_mount /comm == "perfgadgets"/ { @moved[args->ret] = count(); }
    """
    with started(Mount(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(gadgets, "mount", tmp_path, MOUNTS, FAILED, MOVED, service=service) as program:
            program.run()
            taken = Taken().take(collector)
    assert taken.lost == 0
    mine = taken.of(pid=program.pid, kind="mount")
    assert {(row["service"], row["comm"], row["uid"]) for row in mine} == {(service, "perfgadgets", 0)}
    assert all(300 < row["latency_ns"] < 5_000_000_000 for row in mine)
    assert Counter((row["detail"], row["result"]) for row in mine) == {
        ("mount /", 0): 1,
        (f"mount tmpfs {tmp_path}", 0): MOUNTS,
        (f"umount {tmp_path}", 0): MOUNTS,
        (f"mount nosuchfs {tmp_path}", -errno.ENODEV): FAILED,
        (f"umount {tmp_path}", -errno.EINVAL): 1,
        ("fsopen tmpfs", 0): MOVED,
        ("fsmount", 0): MOVED,
        (f"move_mount {tmp_path}/inner", 0): MOVED,
        (f"umount {tmp_path}/inner", 0): MOVED,
    }
    told = {(row["detail"], row["result"]): dict(row["attributes"]) for row in mine}
    place = {"target": str(tmp_path)}
    assert told["mount /", 0] == {"operation": "mount", "source": "none", "target": "/", "flags": "MS_REC|MS_PRIVATE"}
    assert told[f"mount tmpfs {tmp_path}", 0] == {
        "operation": "mount", "source": "known", **place, "type": "tmpfs", "flags": "MS_NOSUID|MS_NODEV",
    }  # fmt: skip
    assert told[f"umount {tmp_path}", 0] == {"operation": "umount", **place, "flags": "MNT_DETACH"}
    assert told[f"umount {tmp_path}", -errno.EINVAL] == {"operation": "umount", **place}
    assert told["fsmount", 0]["flags"] == "MOUNT_ATTR_NOSUID"
    assert told["fsmount", 0]["source"] == f"fd {told['fsopen tmpfs', 0]['fd']}"
    assert told[f"move_mount {tmp_path}/inner", 0] == {
        "operation": "move_mount",
        "source": f"fd {told['fsmount', 0]['fd']}",
        "target": f"{tmp_path}/inner",
        "flags": "0x4",
    }
    assert "size=64k" not in str(mine)  # options may hold passwords

    assert trace.maps["@mount"] == {"0": MOUNTS + 1, str(-errno.ENODEV): FAILED}
    assert trace.maps["@umount"] == {"0": MOUNTS + MOVED, str(-errno.EINVAL): 1}
    assert trace.maps["@moved"] == {"0": MOVED}
