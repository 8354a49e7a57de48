"""Compile one ``.bpf.c`` to an object file, in a process of its own: LLVM costs over 100 MB that end with it.

``python -m collectors.bpf.compile SOURCE OUTPUT REQUEST`` where REQUEST is JSON with ``defines`` and ``offsets``.
Uses the distribution's BCC (``python3-bpfcc``), which is no PyPI package: only that one package is loaded from the
system's folder, so that nothing else there shadows ours.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType

from collectors.bpf.btf import Btf
from collectors.bpf.object import MapSpec, Object, ProgramSpec, relocations
from streams.schema.errors import KernelError

BCC = Path("/usr/lib/python3/dist-packages/bcc")
BY_BTF = "tp_btf__"
_OWN_INCLUDE = re.compile(r'^[ \t]*#include "([\w.]+)"[^\n]*$', re.MULTILINE)


def default_cache() -> Path:
    """Return where objects are kept: ``bpf`` below ``PERFSTREAM_CACHE``, else ``.cache/bpf`` here."""
    given = os.environ.get("PERFSTREAM_CACHE")
    return Path(given) / "bpf" if given else Path(".cache") / "bpf"


def load_bcc(folder: Path = BCC) -> ModuleType:
    """Import the distribution's ``bcc`` package alone.

    Raises:
        KernelError: it is not installed.
    """
    spec = importlib.util.spec_from_file_location(
        "bcc", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").exists():
        raise KernelError("BCC is missing; install it: apt-get install python3-bpfcc")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    spec.loader.exec_module(module)
    return module


def whole_text(source: Path) -> str:
    """Return the C with the headers beside it written in: BCC rewrites map access in the main file only."""
    return _OWN_INCLUDE.sub(lambda found: whole_text(source.parent / found[1]), source.read_text())


def compile_source(source: Path, defines: dict[str, str], offsets: dict[str, str]) -> Object:
    """Compile a source file.

    Args:
        source: the C file; files beside it may be included.
        defines: ``-D`` constants.
        offsets: constant name to ``struct.field`` of the running kernel; its byte offset becomes the constant.

    Raises:
        KernelError: BCC or BTF is missing, a field does not exist here, or the C does not compile.
    """
    text = whole_text(source)
    btf = Btf() if offsets or BY_BTF in text else None
    constants = dict(defines)
    for name, path in offsets.items():
        assert btf is not None
        constants[name] = str(btf.offset(path))
    bcc = load_bcc()
    # By default BCC loads and attaches what is named like a tracepoint; that is the loader's part.
    bcc.BPF._trace_autoload = lambda _self: None  # noqa: SLF001 - BCC has no public switch for it
    flags = ["-Wno-everything"]
    flags += [f"-D{name}={value}" for name, value in constants.items()]
    try:
        module = bcc.BPF(text=text.encode(), cflags=flags)
    except Exception as error:
        raise KernelError(f"{source.name} does not compile: {error}") from error
    lib, handle = bcc.lib, ctypes.c_void_p(module.module)
    # The bindings declare only some of these; without a type ctypes would cut the handle to 32 bits.
    for function in (lib.bpf_table_fd_id, lib.bpf_table_key_size_id, lib.bpf_table_leaf_size_id, lib.bpf_table_name):
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_key_size_id.restype = lib.bpf_table_leaf_size_id.restype = ctypes.c_size_t
    names: dict[int, str] = {}
    maps: dict[str, MapSpec] = {}
    for index in range(lib.bpf_num_tables(handle)):
        name = lib.bpf_table_name(handle, index).decode()
        names[lib.bpf_table_fd_id(handle, index)] = name
        maps[name] = MapSpec(
            kind=lib.bpf_table_type_id(handle, index),
            key_size=lib.bpf_table_key_size_id(handle, index),
            value_size=lib.bpf_table_leaf_size_id(handle, index),
            max_entries=lib.bpf_table_max_entries_id(handle, index),
            flags=lib.bpf_table_flags_id(handle, index),
        )
    programs = {}
    for index in range(lib.bpf_num_functions(handle)):
        name = lib.bpf_function_name(handle, index).decode()
        code = module.dump_func(name.encode())
        attach = 0
        if name.startswith(BY_BTF):
            assert btf is not None
            attach = btf.typedef_id(f"btf_trace_{name.removeprefix(BY_BTF)}")
        programs[name] = ProgramSpec(code, relocations(code, names), attach)
    return Object(programs, maps)


def main() -> int:
    """Compile as the command line says; an expected failure is one message on standard error."""
    source, output, request = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    try:
        compile_source(source, request["defines"], request["offsets"]).write(output)
    except KernelError as error:
        sys.stderr.write(f"perfstream: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
