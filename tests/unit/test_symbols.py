"""Addresses to names: ELF tables, mappings, JIT maps, kernel symbols, demangling, and the whole on our own process."""

import ctypes
import lzma
import mmap
import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.symbols import Symbolizer, files, maps
from collectors.symbols.demangle import demangle
from collectors.symbols.elf import Elf, reader_of_bytes
from collectors.symbols.kernel import KernelSymbols
from collectors.symbols.lru import Lru
from collectors.symbols.modules import Module, Modules
from collectors.symbols.perfmap import PerfMap, parts
from collectors.symbols.process import Process, identity
from collectors.symbols.symbolizer import callers_adjusted
from streams.schema.stacks import split, stack_id


def u64(*values):
    return np.array(values, np.uint64)


FUNC, OBJECT, GLOBAL, WEAK, LOCAL = 2, 1, 1, 2, 0


def elf_file(symbols, *, dynamic=False, build_id=b"\xab" * 20, extra=None):
    """An ELF file with code at offset 0x1000, linked at 0x401000; symbols: (name, value, size, type, bind)."""
    strings, table = b"\0", bytes(24)
    for name, value, size, kind, bind in symbols:
        table += struct.pack("<IBBHQQ", len(strings), bind << 4 | kind, 0, 1, value, size)
        strings += name.encode() + b"\0"
    note = struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id if build_id else b""
    names = b"\0.gnu_debugdata\0"
    parts, at = {}, 0x2000
    for part, data in (
        ("table", table),
        ("strings", strings),
        ("note", note),
        ("names", names),
        ("extra", extra or b""),
    ):
        parts[part] = (at, len(data))
        at += len(data) + -len(data) % 8
    sections = [
        (0, 0, 0, 0, 0, 0),
        (0, 11 if dynamic else 2, *parts["table"], 2, 24),
        (0, 3, *parts["strings"], 0, 0),
        (0, 7, *parts["note"], 0, 0),
        (0, 3, *parts["names"], 0, 0),
    ]
    if extra is not None:
        sections.append((1, 1, *parts["extra"], 0, 0))
    body = bytearray(at)
    for part, data in (
        ("table", table),
        ("strings", strings),
        ("note", note),
        ("names", names),
        ("extra", extra or b""),
    ):
        body[parts[part][0] : parts[part][0] + len(data)] = data
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, at, 0, 64, 56, 1, 64, len(sections), 4)
    body[:64] = header
    body[64:120] = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, 0x401000, 0x401000, 0x800, 0x800, 0x1000)
    for name, kind, offset, size, link, entry in sections:
        body += struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, link, 0, 8, entry)
    return bytes(body)


SYMBOLS = [
    ("first", 0x401000, 0x10, FUNC, GLOBAL),
    ("__alias", 0x401020, 0x10, FUNC, GLOBAL),
    ("alias", 0x401020, 0x10, FUNC, WEAK),
    ("assembly", 0x401040, 0, FUNC, LOCAL),
    ("data", 0x401050, 0x100, OBJECT, GLOBAL),
    ("last", 0x401060, 0x10, FUNC, LOCAL),
]


@pytest.mark.parametrize("dynamic", [False, True])
def test_where_functions_begin_in_the_file(dynamic):
    elf = Elf(reader_of_bytes(elf_file([*SYMBOLS, ("not_first", 0x401700, 8, FUNC, GLOBAL)], dynamic=dynamic)))
    names = {"first", "alias", "last", "data", "missing", "a"}
    # "alias" is also how another name ends, which a linker may keep once; "data" is none, "a" no whole name.
    assert elf.function_offsets(names) == {"first": 0x1000, "alias": 0x1020, "last": 0x1060}
    assert elf.function_offsets(set()) == {}


def names_of(elf, *offsets):
    table = elf.symbols()
    found = table.find(elf.vaddr_of_offset(u64(*offsets)))
    return [table.name(int(i)) if i >= 0 else "" for i in found]


def test_functions_by_file_offset():
    elf = Elf(reader_of_bytes(elf_file(SYMBOLS)))
    assert elf.build_id == "ab" * 20
    assert elf.has_symtab
    wanted = {
        0x1000: "first",
        0x100F: "first",
        0x1010: "",
        0x1020: "alias",
        0x1055: "assembly",
        0x1060: "last",
        0x1070: "",
    }
    assert names_of(elf, *wanted) == list(wanted.values())
    assert elf.vaddr_of_offset(u64(0x900, 0x1000, 0x17FF, 0x1800)).tolist() == [0, 0x401000, 0x4017FF, 0]


def test_a_stripped_file_has_its_dynamic_symbols_and_mini_debug_info():
    inner = elf_file([("hidden", 0x401030, 0x10, FUNC, LOCAL)])
    elf = Elf(reader_of_bytes(elf_file(SYMBOLS[:1], dynamic=True, extra=lzma.compress(inner))))
    assert not elf.has_symtab
    assert names_of(elf, 0x1000, 0x1030) == ["first", ""]
    assert names_of(elf.mini_debug_info(), 0x1030) == ["hidden"]
    assert Elf(reader_of_bytes(elf_file([], extra=b"no xz"))).mini_debug_info() is None
    bomb = lzma.compress(bytes(70 << 20), preset=0)
    assert Elf(reader_of_bytes(elf_file([], extra=bomb))).mini_debug_info() is None


def test_a_module_joins_all_it_knows_and_names_itself_for_the_rest(tmp_path):
    inner = elf_file([("_ZN4mill5wheel4turnEv", 0x401030, 0x10, FUNC, LOCAL)])
    path = tmp_path / "libmill.so.3"
    path.write_bytes(elf_file(SYMBOLS[:1], dynamic=True, extra=lzma.compress(inner)))
    module = Module(os.open(path, os.O_RDONLY), str(path))
    frames = [split(text)[0] for text in module.frames(u64(0x1000, 0x1030, 0x1050, 0x9000))]
    assert [frame.function for frame in frames] == ["first", "mill::wheel::turn()", "[libmill.so.3]", "[libmill.so.3]"]
    assert {frame.file for frame in frames} == {str(path)}
    assert module.nbytes > 0
    module.close()


def test_symbols_that_were_forgotten_are_read_again_from_a_file_that_is_gone(tmp_path, monkeypatch):
    path = tmp_path / "wheel"
    path.write_bytes(elf_file(SYMBOLS).ljust(1 << 16, b"\0"))
    modules = Modules()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        mappings = maps.parse(Path("/proc/self/maps").read_bytes())
        (mapping,) = [each for each in mappings.entries if each.path == str(path)]
        key = modules.key_of(os.getpid(), mapping)
    named = modules.get(key).frames(u64(0x1000))
    assert split(named[0])[0].function == "first"
    path.unlink()
    monkeypatch.setattr("collectors.symbols.modules.MAX_SYMBOL_BYTES", 0)
    modules.trim()
    assert modules.nbytes == 0
    assert modules.get(key).frames(u64(0x1000)) == named
    modules.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=16)), max_size=8), st.integers(0, 9000))
def test_a_damaged_file_never_does_harm(tmp_path_factory, changes, length):
    data = bytearray(elf_file(SYMBOLS, extra=lzma.compress(elf_file(SYMBOLS))))
    for at, change in changes:
        data[at : at + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[:length] if length > 8 else data)
    module = Module(os.open(path, os.O_RDONLY), "damaged")
    assert len(module.frames(u64(0x1000, 0x1030, 1 << 63))) == 3
    module.close()


MAPS = b"""\
00400000-00401000 r--p 00000000 08:01 11 /bin/app
00401000-00402000 r-xp 00001000 08:01 11 /bin/app
7f0000000000-7f0000001000 r-xp 00000000 00:00 0
7f0000002000-7f0000003000 rwxp 00000000 00:00 0                          [anon:jit]
7f0000004000-7f0000006000 r-xp 00002000 08:01 12                         /lib/with blank.so (deleted)
7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0                          [vdso]
not a line at all x
7ffff7fc4000 r-xp broken 00:00 0
"""


def test_mappings():
    mappings = maps.parse(MAPS)
    assert [each.path for each in mappings.entries] == [
        "/bin/app", "", "[anon:jit]", "/lib/with blank.so (deleted)", "[vdso]"
    ]  # fmt: skip
    assert [each.is_file for each in mappings.entries] == [True, False, False, True, False]
    assert [each.may_be_jit for each in mappings.entries] == [False, True, True, False, False]
    assert mappings.entries[3].shown_path == "/lib/with blank.so"
    found = mappings.find(u64(0x400FFF, 0x401000, 0x401FFF, 0x402000, 0x7F0000005000, 1))
    assert found.tolist() == [-1, 0, 0, -1, 3, -1]
    assert maps.EMPTY.find(u64(1)).tolist() == [-1]


def test_a_jits_map_is_read_as_it_grows():
    perf, written = PerfMap(), bytearray()

    def append(text):
        written.extend(text)
        return perf.update(reader_of_bytes(bytes(written)), len(written))

    assert append(b"1000 20 first\n2000 10 second half of")
    assert [perf.name(a) for a in (0xFFF, 0x1000, 0x101F, 0x1020, 0x2000)] == ["", "first", "first", "", ""]
    assert append(b" a line\nnonsense\nzz 10 x\n3000 0 empty\n")
    assert perf.name(0x200F) == "second half of a line"
    assert not append(b"")
    assert append(b"1000 20 written again\n")
    assert perf.name(0x1008) == "written again"
    assert len(perf) == 3
    fresh = b"9000 8 another process\n"
    assert perf.update(reader_of_bytes(fresh), len(fresh))  # a smaller file under the old name
    assert [perf.name(0x1008), perf.name(0x9000)] == ["", "another process"]


@pytest.mark.parametrize(
    ("mangled", "readable"),
    [
        ("main", "main"),
        ("_start", "_start"),
        ("_ZN4mill5WheelImE4turnEj", "mill::Wheel<unsigned long>::turn(unsigned int)"),
        ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<int, std::allocator<int> >::push_back(int&&)"),
        ("_Znot_really", "_Znot_really"),
        ("_ZN7grinder6stones16Grinder$LT$T$GT$5grind17h0123456789abcdefE", "grinder::stones::Grinder<T>::grind"),
        ("_ZN7grinder4main17h0123456789abcdefE.llvm.1234ABCD", "grinder::main"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_R", "_R"),
        ("_Z" + "a" * 9000, "_Z" + "a" * 9000),
    ],
)
def test_demangling(mangled, readable):
    assert demangle(mangled) == readable


def test_what_is_used_least_recently_leaves():
    left = []
    cache = Lru(2, left.append)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("b"), cache.values(), left) == (None, [1, 3], [2])
    cache.put("a", 10)
    assert left == [2, 1]
    cache.clear()
    assert (len(cache), sorted(left)) == (0, [1, 2, 3, 10])


def test_kernel_symbols(tmp_path):
    now = [0.0]
    symbols = KernelSymbols(tmp_path, lambda: now[0])
    assert symbols.names(u64(5)) == [("[kernel]", "[kernel]")]
    (tmp_path / "kallsyms").write_text("0000000000000000 T hidden\n")
    now[0] = 61.0
    assert not symbols.available  # kptr_restrict
    (tmp_path / "kallsyms").write_text(
        "ffffffff81000200 t inner\nffffffff81000000 T _stext\nffffffff81000300 d data\nffffffffc0000000 t go\t[nf]\n"
    )
    now[0] = 122.0
    assert symbols.available
    assert symbols.names(u64(0xFFFFFFFF81000000, 0xFFFFFFFF81000350, 0xFFFFFFFFC0000001, 7)) == [
        ("_stext", "[kernel]"), ("inner", "[kernel]"), ("go", "[nf]"), ("[kernel]", "[kernel]")
    ]  # fmt: skip


def test_callers_are_moved_back_into_the_call():
    assert callers_adjusted(u64(10, 20, 30)).tolist() == [10, 19, 29]
    assert callers_adjusted(u64()).tolist() == []


def own_address(name):
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value


def test_our_own_process_by_name():
    symbolizer = Symbolizer()
    stack, unknown = u64(own_address("getpid"), own_address("getenv") + 1), u64(8)
    named = symbolizer.stacks(os.getpid(), [(1, 0), (2, 0)], [stack, unknown], [u64(), u64()])
    assert [frame.function for frame in split(named[0][1])] == ["getenv", "getpid"]
    assert all("libc" in frame.file for frame in split(named[0][1]))
    assert [frame.function for frame in split(named[1][1])] == ["[unknown]"]
    assert [stack_id(text) for _, text in named] == [number for number, _ in named]
    assert symbolizer.stacks(os.getpid(), [(1, 0)], [stack], [u64()]) == named[:1]
    assert symbolizer.stats()["processes"] == 1
    symbolizer.close()


def test_a_process_that_is_gone_is_named_when_it_was_seen_and_said_to_be_gone_when_not(tmp_path):
    symbolizer, pid = Symbolizer(), os.fork()
    if not pid:
        signal.pause()
    address = u64(own_address("getpid"))
    symbolizer.prefetch([pid])
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    ((_, seen),) = symbolizer.stacks(pid, [(1, 0)], [address], [u64()])
    ((_, never),) = Symbolizer().stacks(pid, [(1, 0)], [address], [u64()])
    assert split(seen)[0].function == "getpid"
    assert split(never)[0].function == "[exited]"
    symbolizer.close()


def test_files_of_a_process_that_may_not_use_map_files(monkeypatch):
    def refuse(_):
        raise PermissionError

    monkeypatch.setattr("collectors.symbols.modules.files.open_regular", refuse)
    process = Process(Path("/proc"), os.getpid(), identity(Path("/proc"), os.getpid()), Modules())
    assert process.read_maps()
    address = u64(own_address("getpid"))
    assert split(process.frames(address)[int(address[0])])[0].function == "getpid"


def test_paths_do_not_lead_out_of_a_root(tmp_path):
    (tmp_path / "root/tmp").mkdir(parents=True)
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root/tmp/link").symlink_to("../../secret")
    (tmp_path / "root/tmp/absolute").symlink_to(sys.executable)
    os.mkfifo(tmp_path / "root/tmp/pipe")
    for path in ("/tmp/link", "/tmp/absolute", "/../secret", "/tmp", "/tmp/pipe"):
        with pytest.raises(OSError):  # noqa: PT011 - the kernel's reasons differ
            os.close(files.open_in_root(tmp_path / "root", path))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("JS:*sell /srv/shop.js:5:20", ("sell", "/srv/shop.js", 5)),
        ("LazyCompile:~sell /srv/my shop.js:5:20", ("sell", "/srv/my shop.js", 5)),
        ("JS:^ /srv/shop.js:7:1", ("(anonymous)", "/srv/shop.js", 7)),
        ("Function:Shop.sell node:internal/x:1:2", ("Shop.sell", "node:internal/x", 1)),
        ("void Shop.sell()", ("void Shop.sell()", "[anon]", 0)),
        ("JS:oddly", ("JS:oddly", "[anon]", 0)),
    ],
)
def test_a_function_of_v8_has_one_name_however_it_is_compiled(name, wanted):
    assert parts(name, "[anon]") == wanted
