"""Load a ``.bpf.c`` file: compile it (or take the cached object), create its maps, load and attach its programs.

A program's name says where it belongs::

    tracepoint__CATEGORY__EVENT   a tracepoint, arguments by the running kernel's format (``TRACEPOINT_PROBE``)
    tp_btf__EVENT                 a tracepoint's raw arguments, loads checked against BTF; the cheapest: no copy
    raw_tp__EVENT                 a tracepoint's raw arguments
    perf_event__NAME              run by a perf event
    uprobe__FUNCTION              a function of a user-space library is entered (``attach_library``)
    uretprobe__FUNCTION           it returns
    socket_filter__NAME           a packet reaches a socket (``attach_socket``)
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from collectors.bpf import kernel, requirements
from collectors.bpf.btf import VMLINUX
from collectors.bpf.compile import BCC, default_cache
from collectors.bpf.kernel import RunStats
from collectors.bpf.maps import Map
from collectors.bpf.object import Object
from collectors.symbols.elf import Elf, reader_of
from streams.schema.errors import KernelError

_KINDS = {
    "tracepoint": kernel.PROG_TRACEPOINT,
    "tp_btf": kernel.PROG_TRACING,
    "raw_tp": kernel.PROG_RAW_TRACEPOINT,
    "perf_event": kernel.PROG_PERF_EVENT,
    "uprobe": kernel.PROG_KPROBE,
    "uretprobe": kernel.PROG_KPROBE,
    "socket_filter": kernel.PROG_SOCKET_FILTER,
}
COMPILE_TIMEOUT_S = 120.0
HERE = Path(__file__).parent


class Programs:
    """The loaded programs and maps of one source file. Closing it detaches and frees everything."""

    def __init__(self, compiled: Object, sizes: Mapping[str, int]) -> None:
        self.maps: dict[str, Map] = {}
        self._programs: dict[str, int] = {}
        self._links: list[int] = []
        try:
            for name, spec in compiled.maps.items():
                entries = sizes.get(name, spec.max_entries)
                self.maps[name] = Map(name, spec.kind, spec.key_size, spec.value_size, entries, spec.flags)
            descriptors = {name: each.fd for name, each in self.maps.items()}
            for name, program in compiled.programs.items():
                kind = _KINDS[name.partition("__")[0]]
                self._programs[name] = kernel.prog_load(
                    kind,
                    program.linked(descriptors),
                    name.partition("__")[2],
                    kernel.ATTACH_TRACE_RAW_TP if kind == kernel.PROG_TRACING else 0,
                    program.attach_btf_id,
                )
        except BaseException:
            self.close()
            raise

    def attach(self) -> None:
        """Attach every tracepoint program where its name says. The other kinds need to be told where."""
        for name in self._programs:
            kind, _, rest = name.partition("__")
            if kind == "tracepoint":
                category, _, event = rest.partition("__")
                self.attach_tracepoint(name, category, event)
            elif kind in ("raw_tp", "tp_btf"):
                self.attach_raw(name, rest if kind == "raw_tp" else None)

    def attach_tracepoint(self, program: str, category: str, event: str) -> None:
        """Run a program at a tracepoint."""
        if why := requirements.tracepoint_missing(category, event):
            raise KernelError(why)
        number = int((requirements.TRACEFS / "events" / category / event / "id").read_text())
        # One CPU is enough to open it: the program then runs for the event on every CPU.
        fd = kernel.perf_event_open(kernel.PERF_TRACEPOINT, number, cpu=kernel.online_cpus()[0], period=1)
        self._links.append(fd)
        kernel.perf_event_attach(fd, self._programs[program])

    def attach_raw(self, program: str, event: str | None) -> None:
        """Run a program at a raw tracepoint; ``event`` None for one that BTF names."""
        self._links.append(kernel.raw_tracepoint_open(self._programs[program], event))

    def attach_perf_event(
        self, program: str, kind: int = kernel.PERF_SOFTWARE, config: int = 0, *, frequency: int = 0, period: int = 0
    ) -> list[int]:
        """Run a program at a perf event (default: the CPU clock) on every online CPU; returns the descriptors.

        Give ``frequency`` in Hz or ``period`` in the event's unit (ns for the CPU clock).
        """
        opened = []
        for cpu in kernel.online_cpus():
            fd = kernel.perf_event_open(kind, config, cpu, frequency=frequency, period=period)
            self._links.append(fd)
            opened.append(fd)
            kernel.perf_event_attach(fd, self._programs[program])
        return opened

    def attach_library(self, path: str) -> list[int]:
        """Run every ``uprobe__`` and ``uretprobe__`` program at its function in one file; returns the descriptors.

        A function that the file lacks is left out: versions of a library differ.

        Raises:
            KernelError: the file cannot be read, or has none of the functions.
        """
        probes = (name for name in self._programs if name.startswith(("uprobe__", "uretprobe__")))
        named = [(name, *name.split("__", 1)) for name in probes]
        try:
            with Path(path).open("rb") as file:
                at = Elf(reader_of(file.fileno())).function_offsets({function for _, _, function in named})
        except (OSError, ValueError) as error:
            raise KernelError(f"cannot read the symbols of {path}: {error}") from error
        if not at:
            raise KernelError(f"{path} has no function {named[0][2] if named else ''}")
        opened: list[int] = []
        for program, kind, function in named:
            if function in at:
                fd = kernel.uprobe_open(path, at[function], returning=kind == "uretprobe")
                self._links.append(fd)
                opened.append(fd)
                kernel.perf_event_attach(fd, self._programs[program])
        return opened

    def attach_socket(self, sock: socket.socket) -> None:
        """Run the ``socket_filter__`` program for a socket's packets; the socket's end is the attachment's."""
        (program,) = (fd for name, fd in self._programs.items() if name.startswith("socket_filter__"))
        kernel.filter_socket(sock, program)

    def detach(self, descriptors: list[int]) -> None:
        """Close attachments that ``attach_perf_event`` or ``attach_library`` returned."""
        for fd in descriptors:
            self._links.remove(fd)
            os.close(fd)

    def stats(self) -> RunStats:
        """Return what all programs have cost (``run_time_ns``: while ``kernel.enable_stats`` is open)."""
        return sum(self.stats_by_program().values(), RunStats(told_ns=self._told_ns()))

    def _told_ns(self) -> int:
        if "cost" not in self.maps:
            return 0  # programs that run too seldom to be worth it
        # Each CPU's {runs since the last that was timed, nanoseconds}.
        raw = self.maps["cost"].lookup(bytes(4)) or b""
        return sum(ns for _, ns in struct.iter_unpack("=QQ", raw))

    def missed(self) -> int:
        """Return how many runs the kernel has skipped (a program was interrupted by its own event): events lost."""
        return sum(each.missed for each in self.stats_by_program().values())

    def stats_by_program(self) -> dict[str, RunStats]:
        """Return the same for each program."""
        return {name: kernel.prog_stats(fd) for name, fd in self._programs.items()}

    def memory_bytes(self) -> int:
        """Return the kernel memory of all maps."""
        return sum(each.memory_bytes() for each in self.maps.values())

    def close(self) -> None:
        """Detach everything and free it. May be called twice."""
        for fd in (*self._links, *self._programs.values()):
            os.close(fd)
        self._links.clear()
        self._programs.clear()
        for each in self.maps.values():
            each.close()

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Close it when what is done here fails."""
        try:
            yield self
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(
    source: Path | str,
    defines: Mapping[str, int | str] | None = None,
    *,
    offsets: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    cache: Path | None = None,
) -> Programs:
    """Load a source file; nothing is attached yet.

    Args:
        source: the C file; a bare name is looked for beside this module.
        defines: ``-D`` constants.
        offsets: constant name to ``struct.field`` whose byte offset in the running kernel it becomes.
        sizes: map name to another ``max_entries`` (ring buffers: bytes, a power of two of pages).
        cache: folder of compiled objects; default ``default_cache()``.

    Raises:
        KernelError: something is missing; the message says what and what to do.
    """
    path = Path(source) if os.sep in str(source) else HERE / source
    if lines := requirements.missing():
        raise KernelError("; ".join(lines))
    return Programs(_object(path, defines or {}, offsets or {}, cache or default_cache()), sizes or {})


def _object(source: Path, defines: Mapping[str, int | str], offsets: Mapping[str, str], cache: Path) -> Object:
    text = source.read_text()
    for category, event in re.findall(r"TRACEPOINT_PROBE\((\w+),\s*(\w+)\)", text):
        if why := requirements.tracepoint_missing(category, event):
            raise KernelError(why)
    request = json.dumps(
        {"defines": {k: str(v) for k, v in sorted(defines.items())}, "offsets": dict(sorted(offsets.items()))}
    )
    target = cache / f"{source.name.removesuffix('.bpf.c')}-{_digest(source, text, request)}.json"
    if target.exists():
        return Object.read(target)
    cache.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "collectors.bpf.compile", str(source), str(partial), request],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])},
        )
        if done.returncode:
            raise KernelError(done.stderr.strip()[-4000:] or f"compiling {source.name} failed ({done.returncode})")
        partial.replace(target)
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"compiling {source.name} took over {COMPILE_TIMEOUT_S:.0f} s") from error
    finally:
        partial.unlink(missing_ok=True)
    return Object.read(target)


def _digest(source: Path, text: str, request: str) -> str:
    """Hash all that the result depends on: sources, constants, kernel (release, BTF), BCC, tracepoint formats."""
    digest = hashlib.sha256()
    for header in sorted(source.parent.glob("*.h")):
        digest.update(header.read_bytes())
    for category, event in re.findall(r"TRACEPOINT_PROBE\((\w+),\s*(\w+)\)", text):
        digest.update((requirements.TRACEFS / "events" / category / event / "format").read_bytes())
    version = BCC / "version.py"
    btf = VMLINUX.read_bytes() if VMLINUX.exists() else b""
    compiler = (HERE / "compile.py").read_bytes() + (HERE / "object.py").read_bytes()
    for part in (text, request, platform.release(), platform.machine(), platform.version()):
        digest.update(part.encode() + b"\0")
    for data in (btf, compiler, version.read_bytes() if version.exists() else b""):
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()[:32]
