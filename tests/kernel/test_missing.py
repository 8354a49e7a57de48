"""What is missing is one clear line; what is loaded is small, and gone when it is closed."""

import ctypes
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from collectors.bpf import btf, fields, loader, requirements
from collectors.bpf.compile import whole_text
from collectors.bpf.kernel import bpf
from collectors.profile.runqlat import RunQueueLatency
from collectors.trace.exec import Exec
from collectors.trace.oomkill import OomKill
from collectors.trace.ssl import Ssl
from collectors.trace.tcpdrop import TcpDrop
from streams.schema.errors import KernelError

ROOT = Path(__file__).parents[2]


def one_line(collector):
    with pytest.raises(KernelError) as error:
        collector.start()
    collector.close()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_tracepoint_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(requirements, "TRACEFS", tmp_path)
    (tmp_path / "events").mkdir()
    assert one_line(OomKill()) == ("tracepoint oom:mark_victim does not exist in this kernel; use a kernel that has it")


def test_what_a_tracepoint_does_not_tell_yet_is_one_line(monkeypatch, tmp_path):
    form = tmp_path / "events/skb/kfree_skb"
    form.mkdir(parents=True)
    monkeypatch.setattr(requirements, "TRACEFS", tmp_path)
    assert one_line(TcpDrop()).startswith("tracepoint skb:kfree_skb does not exist")
    (form / "id").write_text("7")
    (form / "format").write_text("field:void * skbaddr;\tfield:void * location;")
    assert one_line(TcpDrop()) == "tracepoint skb:kfree_skb tells no reason in this kernel; Linux 5.17 and later do"


def test_a_kernel_without_uprobes_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(requirements, "UPROBES", tmp_path)
    assert one_line(Ssl()) == "this kernel has no uprobes; use one with CONFIG_UPROBE_EVENTS=y"


def test_a_kernel_without_btf_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(requirements, "VMLINUX", tmp_path / "vmlinux")
    assert one_line(RunQueueLatency()) == f"{tmp_path}/vmlinux is missing; use a kernel with CONFIG_DEBUG_INFO_BTF=y"


def test_a_field_that_this_kernel_lacks_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(RunQueueLatency, "offsets", {"OFF_NOTHING": "task_struct.no_such_field"})
    line = one_line(RunQueueLatency(cache=tmp_path))
    assert line == "perfstream: this kernel's BTF has no field task_struct.no_such_field"


def test_without_bcc_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(requirements, "BCC", tmp_path)
    assert one_line(Exec()) == "BCC is missing; install it: apt-get install python3-bpfcc"


def test_without_the_capability_it_is_one_line():
    code = "from collectors.trace.exec import Exec; Exec().start()"
    done = subprocess.run(
        ["capsh", "--drop=cap_sys_admin,cap_bpf,cap_perfmon", "--", "-c", f"exec {sys.executable} -c '{code}'"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "streams.schema.errors.KernelError: no permission for eBPF: CAP_PERFMON and CAP_BPF missing; run as root (sudo)"
    )


def test_c_that_does_not_compile_is_told_and_leaves_nothing(tmp_path):
    source = tmp_path / "broken.bpf.c"
    source.write_text("int tp_btf__sched_switch(u64 *ctx) { return nonsense; }\n")
    with pytest.raises(KernelError, match=r"broken\.bpf\.c"):
        loader.load(source, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_object_is_compiled_once_and_damage_is_told(tmp_path, monkeypatch):
    collector = OomKill(cache=tmp_path)
    collector.start()
    collector.close()
    collector.close()
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(loader.subprocess, "run", None)  # no second compiler
    again = OomKill(cache=tmp_path)
    again.start()
    again.close()
    kept.write_text("{")
    assert f"{kept} is not a compiled BPF object" in one_line(OomKill(cache=tmp_path))


def programs_in_the_kernel():
    count, current = 0, 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("<III", current, 0, 0), 12)
        try:
            bpf(11, attributes)  # BPF_PROG_GET_NEXT_ID
        except OSError:
            return count
        current = struct.unpack_from("<I", attributes.raw, 4)[0]
        count += 1


@pytest.mark.alone
def test_close_leaves_no_program_in_the_kernel():
    before = programs_in_the_kernel()
    collector = Exec()
    collector.start()
    assert programs_in_the_kernel() >= before + 5
    assert 1 << 20 < collector.memory_bytes() < 4 << 20
    collector.close()
    # Others may load programs meanwhile; ours were five.
    assert programs_in_the_kernel() < before + 5


def test_every_field_is_in_this_kernels_btf():
    types = btf.Btf()
    groups = [group for name, group in vars(fields).items() if name.isupper()]
    assert len(groups) > 15
    for group in groups:
        for path in group.values():
            assert types.offset(path) >= 0 or path.endswith("?")
    assert types.offset("task_struct.tgid") == types.offset("task_struct.pid") + 4
    with pytest.raises(KernelError, match="lacks that tracepoint"):
        types.typedef_id("btf_trace_no_such_thing")


def test_headers_are_written_into_the_text():
    text = whole_text(loader.HERE / "tcpaccept.bpf.c")
    assert '#include "' not in text
    assert "struct event {" in text
