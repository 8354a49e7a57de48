"""One process: its mappings, its files, its JIT's map; user addresses to frames."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collectors.symbols import elf, files, maps
from collectors.symbols.modules import Key, Modules
from collectors.symbols.perfmap import PerfMap, parts
from streams.schema.stacks import UNKNOWN, frame_text

ANONYMOUS = "[anon]"
_MAX_NAMES = 8192
_MAX_STACKS = 4096
_MAX_MAPS_BYTES = 16 * 1024 * 1024

Identity = tuple[int, int, int]
"""(start time in clock ticks, device and inode of the executable): new at fork and at exec."""


def identity(proc: Path, pid: int) -> Identity | None:
    """Return what tells this process from another of the same pid; None when it is gone (or a zombie)."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
        started = int(text[text.rindex(b")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    try:
        exe = (proc / str(pid) / "exe").stat()
    except PermissionError:
        return started, 0, 0  # alive, but closed to us: its frames are unknown, it has not exited
    except OSError:
        return None
    return started, exe.st_dev, exe.st_ino


class Process:
    """The view of one process; ``stacks`` is a cache of finished stacks that the owner may use."""

    def __init__(self, proc: Path, pid: int, who: Identity, modules: Modules) -> None:
        self.pid = pid
        self.identity = who
        self.stacks: dict[tuple[int, int], tuple[int, str]] = {}
        self.maps_read_s = 0.0
        self._proc = proc
        self._modules = modules
        self._mappings = maps.EMPTY
        self._keys: dict[int, Key | None] = {}
        self._names: dict[int, str] = {}
        self._text = b""
        self._perf_map: PerfMap | None = None

    def read_maps(self) -> bool:
        """Read the mappings and open their files; returns whether they changed. Names die with old mappings."""
        try:
            with (self._proc / str(self.pid) / "maps").open("rb") as file:
                text = file.read(_MAX_MAPS_BYTES)
        except OSError:
            return False
        if not text or text == self._text:
            return False
        self._text = text
        self._mappings = maps.parse(text)
        if self._perf_map is None and any(mapping.may_be_jit for mapping in self._mappings.entries):
            # Read while it lives: an address may be asked for when it has exited.
            self._perf_map = PerfMap()
            self._update_perf_map(self._perf_map)
        self._keys = {
            index: self._modules.key_of(self.pid, mapping)
            for index, mapping in enumerate(self._mappings.entries)
            if mapping.is_file
        }
        self.forget()
        return True

    def forget(self) -> None:
        """Drop names and stacks made so far."""
        self._names.clear()
        self.stacks.clear()

    def remember(self, key: tuple[int, int], stack: tuple[int, str]) -> None:
        """Keep a finished stack, within the bound."""
        if len(self.stacks) >= _MAX_STACKS:
            self.stacks.clear()
        self.stacks[key] = stack

    def refresh_jit(self) -> None:
        """Read what the JIT appended, when this process is known to have one."""
        if self._perf_map is not None and self._update_perf_map(self._perf_map):
            self.forget()

    def frames(self, addresses: NDArray[np.uint64]) -> dict[int, str]:
        """Return the frame text of each (unique) address."""
        wanted = np.array([a for a in addresses.tolist() if a not in self._names], np.uint64)
        if len(wanted):
            at = self._mappings.find(wanted)
            if np.any(at < 0) and self.read_maps():
                wanted = np.unique(addresses)
                at = self._mappings.find(wanted)
            if len(self._names) + len(wanted) > _MAX_NAMES:
                self._names.clear()
                wanted = np.unique(addresses)
                at = self._mappings.find(wanted)
            for index in np.unique(at):
                self._resolve(int(index), wanted[at == index])
        return self._names

    def _resolve(self, index: int, addresses: NDArray[np.uint64]) -> None:
        if index < 0:
            texts = [self._jit_name(int(a)) or frame_text(UNKNOWN) for a in addresses]
        else:
            mapping = self._mappings.entries[index]
            offsets = addresses - self._mappings.starts[index] + np.uint64(mapping.offset)
            if mapping.is_file:
                texts = self._file_frames(index, mapping, offsets)
            elif mapping.path == "[vdso]":
                texts = _vdso_frames(self._proc, offsets)
            elif mapping.path.startswith("[") and not mapping.path.startswith("[anon"):
                texts = [self._jit_name(int(a)) or frame_text(mapping.path) for a in addresses]
            else:
                texts = [self._jit_name(int(a)) or frame_text(ANONYMOUS) for a in addresses]
        self._names.update(zip(addresses.tolist(), texts, strict=True))

    def _file_frames(self, index: int, mapping: maps.Mapping, offsets: NDArray[np.uint64]) -> list[str]:
        key = self._keys.get(index)
        module = self._modules.get(key) if key is not None else None
        if module is None:
            key = self._keys[index] = self._modules.key_of(self.pid, mapping)
            module = self._modules.get(key) if key is not None else None
        if module is None:
            path = mapping.shown_path
            return [frame_text(f"[{path.rsplit('/', 1)[-1]}]", path)] * len(offsets)
        return module.frames(offsets)

    def _jit_name(self, address: int) -> str:
        if self._perf_map is None:
            self._perf_map = PerfMap()
            self._update_perf_map(self._perf_map)
        name = self._perf_map.name(address)
        return frame_text(*parts(name, ANONYMOUS)) if name else ""

    def _update_perf_map(self, perf_map: PerfMap) -> bool:
        root = self._proc / str(self.pid) / "root"
        for number in dict.fromkeys((_pid_inside(self._proc, self.pid), self.pid)):
            try:
                fd = files.open_in_root(root, f"/tmp/perf-{number}.map")  # noqa: S108 - the JIT interface's own name
            except OSError:
                continue
            with files.closing(fd):
                return perf_map.update(elf.reader_of(fd), os.fstat(fd).st_size)
        return False


def _pid_inside(proc: Path, pid: int) -> int:
    """Return the pid as the process itself sees it (``NSpid``)."""
    try:
        for line in (proc / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except (OSError, ValueError):
        pass
    return pid


@lru_cache(maxsize=4)
def _vdso(proc: Path) -> tuple[elf.Elf, elf.SymbolTable] | None:
    # Every 64-bit process maps the same image: our own serves for all.
    try:
        own = maps.parse((proc / "self" / "maps").read_bytes())
        at = next(i for i, mapping in enumerate(own.entries) if mapping.path == "[vdso]")
        fd = os.open(proc / "self" / "mem", os.O_RDONLY | os.O_CLOEXEC)
        with files.closing(fd):
            image = os.pread(fd, int(own.ends[at] - own.starts[at]), int(own.starts[at]))
        parsed = elf.Elf(elf.reader_of_bytes(image))
        table = parsed.symbols()
    except (OSError, ValueError, StopIteration):
        return None
    return (parsed, table) if table is not None else None


def _vdso_frames(proc: Path, offsets: NDArray[np.uint64]) -> list[str]:
    known = _vdso(proc)
    if known is None:
        return [frame_text("[vdso]", "[vdso]")] * len(offsets)
    found = known[1].find(known[0].vaddr_of_offset(offsets))
    return [frame_text(known[1].name(int(i)) if i >= 0 else "[vdso]", "[vdso]") for i in found]
