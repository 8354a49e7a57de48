"""What the bytes of trace gadgets' records say."""

import os
import socket
import struct

import numpy as np
import pytest

from collectors.file_path import joined
from collectors.trace.bind import Bind
from collectors.trace.capabilities import Capabilities
from collectors.trace.exec import Exec, ExecArguments
from collectors.trace.fsslower import FsSlower
from collectors.trace.mount import Mount
from collectors.trace.mount import flags_text as mount_flags
from collectors.trace.open import Open
from collectors.trace.open import flags_text as open_flags
from collectors.trace.signal import Signal, signal_name


def record(collector, detail):
    made = np.zeros(1, collector.record)
    made["detail"] = np.frombuffer(detail.ljust(collector.detail_bytes, b"\0"), made["detail"].dtype)
    return made[0]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (0, "O_RDONLY"),
        (os.O_RDWR | os.O_CREAT | os.O_EXCL, "O_RDWR|O_CREAT|O_EXCL"),
        (os.O_WRONLY | os.O_SYNC, "O_WRONLY|O_SYNC"),
        (os.O_WRONLY | os.O_DSYNC, "O_WRONLY|O_DSYNC"),
        (os.O_RDWR | os.O_TMPFILE, "O_RDWR|O_TMPFILE"),
        (os.O_DIRECTORY | 0o100000, "O_RDONLY|O_DIRECTORY"),
        (1 << 40 | 3, "O_ACCMODE|0x10000000000"),
    ],
)
def test_flags_of_an_open(flags, text):
    assert open_flags(flags) == text


def test_an_open():
    layout = struct.Struct("<QIIii256s")
    describe = Open().describe_detail
    assert describe(layout.pack(0, 0o600, 0, -100, 3, b"/a\0rest")) == ("/a", [("flags", "O_RDONLY"), ("fd", "3")])
    # What a path is relative to counts only where it is relative.
    assert ("directory_fd", "7") in describe(layout.pack(0, 0, 0, 7, -1, b"a"))[1]
    assert describe(layout.pack(0, 0, 0, 7, -1, b"/a")) == ("/a", [("flags", "O_RDONLY")])
    assert ("mode", "0600") in describe(layout.pack(os.O_CREAT, 0o600, 0, -100, -1, b"a"))[1]
    assert describe(layout.pack(0, 0, 0, -100, -1, b"\xff" * 256))[0] == "\ufffd" * 256


@pytest.mark.parametrize(
    ("operation", "flags", "text"),
    [
        ("mount", 0, ""),
        ("mount", 4096 | 1 << 14, "MS_BIND|MS_REC"),
        ("mount", 0xC0ED0001, "MS_RDONLY"),
        ("umount", 2 | 8, "MNT_DETACH|UMOUNT_NOFOLLOW"),
        ("fsmount", 2 | 1 << 30, "MOUNT_ATTR_NOSUID|0x40000000"),
        ("move_mount", 4, "0x4"),
    ],
)
def test_flags_of_a_mount(operation, flags, text):
    assert mount_flags(operation, flags) == text


def test_a_mount_by_descriptors():
    detail = struct.pack("<QIiii128s128s32s", 0, 2, 5, 6, -1, b"", b"inner", b"")
    told, attributes = Mount().describe_detail(detail)
    assert told == "move_mount fd 6/inner"
    assert dict(attributes) == {"operation": "move_mount", "source": "fd 5", "target": "fd 6/inner"}


def test_a_bind():
    address = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1")
    detail = struct.pack("<HHI16s16sIi", socket.AF_INET6, 80, 80, address, b"", 6, 0)
    assert Bind().describe_detail(detail) == ("192.0.2.1:80", [("protocol", "tcp")])
    chosen = struct.pack("<HHI16s16sIi", socket.AF_INET, 4242, 0, b"", b"", 17, socket.if_nametoindex("lo"))
    assert Bind().describe_detail(chosen) == (
        "0.0.0.0:4242", [("protocol", "udp"), ("asked_port", "0"), ("interface", "lo")],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (34, "SIGRTMIN"), (36, "SIGRTMIN+2"), (64, "SIGRTMAX"), (33, "signal 33")]
)
def test_names_of_signals(number, name):
    assert signal_name(number) == name


def test_a_signal_of_the_kernel():
    collector = Signal()
    detail = struct.pack("<iiIIII16s", 11, 1, 9, 7, 8, 0, b"app\0x")
    told, attributes = collector.describe(record(collector, detail))
    assert told == "SIGSEGV to app (7)"
    assert dict(attributes) == {
        "signal": "SIGSEGV", "target_pid": "7", "target_comm": "app", "outcome": "9", "from": "kernel, code 1",
        "target_tid": "8",
    }  # fmt: skip


def test_capabilities_by_name():
    collector = Capabilities()
    for number, name in (
        (0, "CAP_CHOWN"),
        (21, "CAP_SYS_ADMIN"),
        (40, "CAP_CHECKPOINT_RESTORE"),
        (41, "capability 41"),
    ):
        told = collector.describe(record(collector, struct.pack("<QHB", 3, number, 1)))
        assert told == (name, [("checks", "3"), ("user_namespace", "other")])


def test_paths_from_names():
    assert joined(b"leaf\0dir\0", whole=True) == "/dir/leaf"
    assert joined(b"leaf\0dir\0ho", whole=False) == "…/dir/leaf"  # the last name has no end: it is not whole
    assert joined(b"", whole=True) == "/"


def test_an_exec_and_its_arguments():
    layout = struct.Struct("<256sBB2xHH256s")
    short, long = Exec(), ExecArguments()
    arguments = b"sh\0-c\0echo it's\0"
    detail = layout.pack(b"/bin/sh", 1, 1, 5, len(arguments), b"work\0junk") + arguments + b"junk"
    assert short.describe(record(short, detail[: short.detail_bytes])) == ("/bin/sh", [("cwd", "/work")])
    assert long.describe(record(long, detail)) == (
        "/bin/sh", [("cwd", "/work"), ("args", """sh -c 'echo it'"'"'s'""")],
    )  # fmt: skip


def test_a_slow_file_and_a_path_as_it_was_called():
    collector = FsSlower()
    head = struct.Struct("<qI4x16s")
    names = b"data\0srv\0"
    detail = head.pack(512, 2, b"nfs4") + struct.pack("<II", len(names), 1) + names
    assert collector.describe(record(collector, detail)) == (
        "/srv/data", [("operation", "write"), ("filesystem", "nfs4"), ("bytes", "512")],
    )  # fmt: skip
    called = head.pack(0, 3, b"") + struct.pack("<II", 8, 2) + b"./gone\0\0"
    assert collector.describe(record(collector, called)) == ("./gone", [("operation", "open")])
