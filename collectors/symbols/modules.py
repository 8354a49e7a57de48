"""Executables and libraries: opened once for each (device, inode, change), shared by all processes that map them."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from collectors.symbols import elf, files
from collectors.symbols.demangle import demangle
from collectors.symbols.lru import Lru
from collectors.symbols.maps import Mapping
from streams.schema.stacks import frame_text

MAX_MODULES = 192
MAX_SYMBOL_BYTES = 48 * 1024 * 1024
_NAMES_PER_MODULE = 4096
_DEBUG = "/usr/lib/debug/.build-id"

Key = tuple[int, int, int, int]


class Module:
    """One file. Symbols are read at the first address; the open descriptor keeps a deleted file readable."""

    def __init__(self, fd: int, path: str, debug_roots: tuple[Path, ...] = ()) -> None:
        self.path = path
        self.unnamed = f"[{PurePosixPath(path).name or 'unknown'}]"
        self._fd = fd
        self._elf: elf.Elf | None = None
        self._keep: list[int] = []
        self._tables: list[elf.SymbolTable] | None = None
        self._debug_roots = debug_roots
        self._debug: elf.Elf | None = None
        self._names: dict[tuple[int, int], str] = {}
        try:
            self._elf = elf.Elf(elf.reader_of(fd))
        except (ValueError, OSError):
            self._elf = None

    @property
    def build_id(self) -> str:
        """The GNU build id in hexadecimal, "" when the file has none."""
        return self._elf.build_id if self._elf else ""

    @property
    def nbytes(self) -> int:
        """Bytes held for symbols."""
        return sum(table.nbytes for table in self._tables or ())

    def unload(self) -> None:
        """Forget the symbols; they are read from the open file again when they are needed, also when it is gone."""
        self._tables = None
        self._names.clear()

    def close(self) -> None:
        """Close the file; symbols of it can no longer be read."""
        for fd in (self._fd, *self._keep):
            os.close(fd)
        self._keep = []
        self._tables = []

    def _load(self) -> list[elf.SymbolTable]:
        if self._elf is None:
            return []
        own = self._elf.symbols()
        if self._elf.has_symtab and own is not None:
            return [own]
        extra = None
        if (debug := self._debug_file()) is not None:
            extra = debug.symbols()
        elif (mini := self._elf.mini_debug_info()) is not None:
            extra = mini.symbols()
        return [table for table in (extra, own) if table is not None and len(table)]

    def _debug_file(self) -> elf.Elf | None:
        if self._debug is not None:
            return self._debug
        if len(self.build_id) < 8:
            return None
        name = f"{_DEBUG}/{self.build_id[:2]}/{self.build_id[2:]}.debug"
        for root in self._debug_roots:
            try:
                fd = files.open_in_root(root, name)
            except OSError:
                continue
            try:
                found = elf.Elf(elf.reader_of(fd))
            except (ValueError, OSError):
                os.close(fd)
                continue
            if found.build_id == self.build_id:
                self._keep.append(fd)
                self._debug = found
                return found
            os.close(fd)
        return None

    def frames(self, offsets: NDArray[np.uint64]) -> list[str]:
        """Return the frame text of each file offset; ``[module]`` where no function is known."""
        if self._tables is None:
            try:
                self._tables = self._load()
            except (ValueError, OSError, IndexError):
                self._tables = []
        nowhere = frame_text(self.unnamed, self.path)
        result = [nowhere] * len(offsets)
        if self._elf is None:
            return result
        vaddrs = self._elf.vaddr_of_offset(offsets)
        open_ends = np.flatnonzero(vaddrs)
        for number, table in enumerate(self._tables):
            found = table.find(vaddrs[open_ends])
            for at, index in zip(open_ends[found >= 0], found[found >= 0], strict=True):
                result[at] = self._name(number, table, int(index))
            open_ends = open_ends[found < 0]
        return result

    def _name(self, number: int, table: elf.SymbolTable, index: int) -> str:
        text = self._names.get((number, index))
        if text is None:
            if len(self._names) >= _NAMES_PER_MODULE:
                self._names.clear()
            name = table.name(index).partition("@")[0]
            text = frame_text(demangle(name) or self.unnamed, self.path)
            self._names[number, index] = text
        return text


class Modules:
    """The bounded cache of modules, by (device, inode, mtime, size)."""

    def __init__(self, proc: Path = Path("/proc"), bound: int = MAX_MODULES) -> None:
        self._proc = proc
        self._cache: Lru[Key, Module] = Lru(bound, Module.close)

    def __len__(self) -> int:
        return len(self._cache)

    def key_of(self, pid: int, mapping: Mapping) -> Key | None:
        """Open the file behind a mapping of a living process and return its key; None when that is not possible.

        ``map_files`` gives the very file, deleted or in another mount namespace; the path inside the process's root
        is the way for an agent that may not use it, and counts only when the inode agrees.
        """
        directory = self._proc / str(pid)
        try:
            fd = files.open_regular(directory / "map_files" / _canonical(mapping.range_text))
        except OSError:
            try:
                fd = files.open_in_root(directory / "root", mapping.shown_path)
            except OSError:
                return None
            if os.fstat(fd).st_ino != mapping.inode:
                os.close(fd)
                return None
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if self._cache.get(key) is not None:
            os.close(fd)
        else:
            self._cache.put(key, Module(fd, mapping.shown_path, (directory / "root", self._proc / "1" / "root")))
        return key

    def get(self, key: Key) -> Module | None:
        """Return a module that is still in the cache."""
        return self._cache.get(key)

    def trim(self) -> None:
        """Forget all symbols when they pass ``MAX_SYMBOL_BYTES``: they are read again when needed.

        The files stay open: what ran from one of them may have exited, and then there is no other way to it.
        """
        if self.nbytes > MAX_SYMBOL_BYTES:
            for module in self._cache.values():
                module.unload()

    @property
    def nbytes(self) -> int:
        """Bytes held for symbols of all modules."""
        return sum(module.nbytes for module in self._cache.values())

    def close(self) -> None:
        """Close all files."""
        self._cache.clear()


def _canonical(range_text: str) -> str:
    # maps pads addresses with zeros to eight digits, map_files does not.
    low, _, high = range_text.partition("-")
    return f"{int(low, 16):x}-{int(high, 16):x}"
