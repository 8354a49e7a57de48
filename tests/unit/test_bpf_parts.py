"""The loader's pure parts: ring buffers, objects, type information, headers; no kernel needed."""

import mmap
import os
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from collectors.bpf import compile as compiler
from collectors.bpf import requirements, ringbuf
from collectors.bpf.btf import Btf
from collectors.bpf.object import MapSpec, Object, ProgramSpec, relocations
from streams.schema.errors import KernelError

RECORD = np.dtype([("number", "<u8"), ("text", "S5")])
STRIDE = 8 + 16  # header and 13 bytes rounded up
PAGE, SIZE = mmap.PAGESIZE, mmap.PAGESIZE


class FakeRing:
    """The memory of a ring buffer in a file; what the kernel maps twice is written twice."""

    def __init__(self):
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.max_entries = SIZE
        self.produced = 0

    def put(self, number, flags=0):
        record = struct.pack("<II", 13 | flags, 0) + struct.pack("<Q5s", number, b"abc") + bytes(3)
        for at, byte in enumerate(record):
            for copy in (0, SIZE):
                os.pwrite(self.fd, bytes([byte]), 2 * PAGE + (self.produced + at) % SIZE + copy)
        self.produced += len(record)
        os.pwrite(self.fd, struct.pack("<Q", self.produced), PAGE)

    def finish(self, at):
        for copy in (0, SIZE):
            os.pwrite(self.fd, struct.pack("<I", 13), 2 * PAGE + at % SIZE + copy)

    @property
    def consumed(self):
        return struct.unpack("<Q", os.pread(self.fd, 8, 0))[0]


@pytest.fixture
def ring(monkeypatch):
    monkeypatch.setattr(
        ringbuf.select, "epoll", lambda: SimpleNamespace(register=lambda *_: 0, close=lambda: 0, poll=lambda _: [])
    )
    made = FakeRing()
    yield made
    os.close(made.fd)


def test_records_come_once_in_order_around_the_end(ring):
    reader = ringbuf.RingBuffer(ring, RECORD)
    assert reader.read().tolist() == []
    number = 0
    for _ in range(40):
        numbers = list(range(number, number + 17))
        number += 17
        for each in numbers:
            ring.put(each)
        got = reader.read()
        assert got["number"].tolist() == numbers
        assert set(got["text"].tolist()) == {b"abc"}
        assert ring.consumed == ring.produced
    assert ring.produced > 3 * SIZE
    reader.close()


def test_a_full_ring_a_busy_record_and_a_discarded_one(ring):
    reader = ringbuf.RingBuffer(ring, RECORD)
    for number in range(SIZE // STRIDE):
        ring.put(number)
    kept = reader.read()
    assert len(kept) == SIZE // STRIDE
    ring.put(1)
    ring.put(2, flags=1 << 30)
    busy = ring.produced
    ring.put(3, flags=1 << 31)
    ring.put(4)
    assert reader.read()["number"].tolist() == [1]
    assert ring.consumed == busy
    assert reader.read()["number"].tolist() == []
    ring.finish(busy)
    assert reader.read()["number"].tolist() == [3, 4]
    assert kept["number"][0] == 0  # a copy: the ring has been written over since
    reader.close()


def load_of_map(descriptor):
    return struct.pack("<BBhi", 0x18, 0x11, 0, descriptor) + struct.pack("<BBhi", 0, 0, 0, 0)


def test_an_object_survives_its_file(tmp_path):
    exit_code = struct.pack("<BBhi", 0x95, 0, 0, 0)
    code = exit_code + load_of_map(70) + load_of_map(71) + exit_code
    found = relocations(code, {70: "first", 71: "second"})
    assert found == {1: "first", 3: "second"}
    one = Object({"tp_btf__x": ProgramSpec(code, found, 99)}, {"first": MapSpec(1, 4, 8, 16, 0)})
    one.write(tmp_path / "object.json")
    again = Object.read(tmp_path / "object.json")
    assert again == one
    linked = again.programs["tp_btf__x"].linked({"first": 5, "second": 6})
    assert [struct.unpack_from("<i", linked, at * 8 + 4)[0] for at in (1, 3)] == [5, 6]
    assert linked[:8] == exit_code


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"programs": {}, "maps": {"x": {"kind": 1}}}'])
def test_a_damaged_object_is_told(tmp_path, damage):
    path = tmp_path / "object.json"
    path.write_text(damage)
    with pytest.raises(KernelError, match="not a compiled BPF object"):
        Object.read(path)


def btf_file(path):
    """outer { int a; union { int left; struct inner { short x, y; } right; }; const inner_t tail; flags : 3 }."""
    names, text = {}, b"\0"
    for name in ("int", "outer", "a", "left", "right", "inner", "x", "y", "tail", "inner_t", "flags", "btf_trace_go"):
        names[name] = len(text)
        text += name.encode() + b"\0"
    n = names.__getitem__

    def kind(which, count=0, flag=0):
        return which << 24 | count | flag << 31

    def record(name, info, size, *rest):
        return struct.pack(f"<{3 + len(rest)}I", n(name) if name else 0, info, size, *rest)

    types = b"".join(
        [
            record("int", kind(1), 4, 32),  # 1
            record("inner", kind(4, 2), 4, n("x"), 1, 0, n("y"), 1, 16),  # 2
            record("inner_t", kind(8), 2),  # 3
            record("", kind(10), 3),  # 4: const inner_t
            record("", kind(5, 2), 4, n("left"), 1, 0, n("right"), 2, 0),  # 5: the anonymous union
            record(
                "outer", kind(4, 4, 1), 16, n("a"), 1, 0, 0, 5, 32, n("tail"), 4, 64, n("flags"), 1, 3 << 24 | 97
            ),  # 6
            record("btf_trace_go", kind(8), 1),  # 7
        ]
    )
    path.write_bytes(struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text)) + types + text)
    return Btf(path)


def test_offsets_go_through_anonymous_members_typedefs_and_qualifiers(tmp_path):
    types = btf_file(tmp_path / "btf")
    wanted = {"outer.a": 0, "outer.left": 4, "outer.right.y": 6, "outer.tail": 8, "outer.tail.y": 10, "inner.y": 2}
    assert {path: types.offset(path) for path in wanted} == wanted
    assert types.typedef_id("btf_trace_go") == 7
    assert [types.offset(path) for path in ("outer.tail?", "outer.b?", "nothing.a?")] == [8, -1, -1]
    for path, why in (
        ("outer.flags", "bit field"),
        ("outer.b", "no field"),
        ("nothing.a", "no field"),
        ("outer.a.x", "no field"),
    ):
        with pytest.raises(KernelError, match=why):
            types.offset(path)
    with pytest.raises(KernelError, match="lacks that tracepoint"):
        types.typedef_id("btf_trace_stop")


def test_a_missing_and_a_foreign_btf_file_are_told(tmp_path):
    with pytest.raises(KernelError, match="CONFIG_DEBUG_INFO_BTF"):
        Btf(tmp_path / "none")
    (tmp_path / "other").write_bytes(bytes(32))
    with pytest.raises(KernelError, match="not BTF"):
        Btf(tmp_path / "other")


def test_headers_are_written_in_where_they_are_included(tmp_path):
    (tmp_path / "a.h").write_text('#include "b.h"\nint a;\n')
    (tmp_path / "b.h").write_text("int b;\n")
    (tmp_path / "x.bpf.c").write_text('#include <uapi/linux/ptrace.h>\n  #include "a.h" // ours\nint x;\n')
    assert compiler.whole_text(tmp_path / "x.bpf.c").split() == (
        ["#include", "<uapi/linux/ptrace.h>", "int", "b;", "int", "a;", "int", "x;"]
    )


def test_the_newest_headers_are_taken(tmp_path):
    assert requirements.installed_headers(tmp_path) is None
    for name in ("6.1.0-9-amd64", "6.1.0-41-amd64", "6.1.0-99-amd64-unfinished"):
        (tmp_path / f"linux-headers-{name}").mkdir()
    for name in ("6.1.0-9-amd64", "6.1.0-41-amd64"):
        (tmp_path / f"linux-headers-{name}" / "include/generated").mkdir(parents=True)
    newest = tmp_path / "linux-headers-6.1.0-41-amd64"
    assert requirements.installed_headers(tmp_path) == (newest, newest)
    (tmp_path / "linux-headers-6.1.0-41-common").mkdir()
    assert requirements.installed_headers(tmp_path) == (newest, tmp_path / "linux-headers-6.1.0-41-common")


def test_a_tracepoint_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(requirements, "TRACEFS", tmp_path)
    (tmp_path / "events/oom/mark_victim").mkdir(parents=True)
    assert "oom:mark_victim does not exist" in requirements.tracepoint_missing("oom", "mark_victim")
    (tmp_path / "events/oom/mark_victim/id").write_text("1")
    assert requirements.tracepoint_missing("oom", "mark_victim") == ""
