"""Function symbols of an ELF file: file offset to name.

Layout after the System V ABI (ELF-64) and the GNU notes; 64-bit little-endian files only. Reads through ``pread``, so
that a file's pages never count into the agent's memory; holds 20 bytes a symbol, names are read when they are asked
for. The file may be anybody's: every offset is checked, every size is bounded, and damage means "no symbols".
"""

from __future__ import annotations

import lzma
import os
import re
from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

Read = Callable[[int, int], bytes]
"""``read(offset, size)``: fewer bytes at the end of the file, none beyond it."""

MAX_SYMBOLS = 2_000_000
MAX_SECTIONS = 4096
MAX_NAME = 4096
MAX_STRINGS = 64 * 1024 * 1024
MAX_MINI_DEBUG = 64 * 1024 * 1024

_EHDR = np.dtype(
    {
        "names": ["phoff", "shoff", "phentsize", "phnum", "shentsize", "shnum", "shstrndx"],
        "formats": ["<u8", "<u8", "<u2", "<u2", "<u2", "<u2", "<u2"],
        "offsets": [32, 40, 54, 56, 58, 60, 62],
        "itemsize": 64,
    }
)
_PHDR = np.dtype(
    {
        "names": ["type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align"],
        "formats": ["<u4", "<u4", "<u8", "<u8", "<u8", "<u8", "<u8", "<u8"],
    }
)
_SHDR = np.dtype(
    {
        "names": ["name", "type", "flags", "addr", "offset", "size", "link", "info", "align", "entsize"],
        "formats": ["<u4", "<u4", "<u8", "<u8", "<u8", "<u8", "<u4", "<u4", "<u8", "<u8"],
    }
)
_SYM = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")])
_PT_LOAD, _PT_NOTE, _PF_X = 1, 4, 1
_SHT_SYMTAB, _SHT_NOTE, _SHT_NOBITS, _SHT_DYNSYM = 2, 7, 8, 11
_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_NT_GNU_BUILD_ID = 3


def reader_of(fd: int) -> Read:
    """Return a reader over an open file; it does not own the descriptor."""
    return lambda offset, size: os.pread(fd, size, offset) if 0 <= offset < 1 << 62 and size > 0 else b""


def reader_of_bytes(data: bytes) -> Read:
    """Return a reader over bytes in memory."""
    return lambda offset, size: data[offset : offset + size] if offset >= 0 and size > 0 else b""


class SymbolTable:
    """Sorted functions of one symbol section: ``find(vaddr)`` gives indices, ``name(index)`` the name."""

    def __init__(self, read: Read, symbols: NDArray[np.void], strings_at: int, strings_size: int) -> None:
        kind = symbols["info"] & 0xF
        keep = ((kind == _STT_FUNC) | (kind == _STT_GNU_IFUNC)) & (symbols["shndx"] != 0) & (symbols["value"] != 0)
        chosen = symbols[keep & (symbols["name"] != 0)]
        # Of names at one address the weak one is the public one in C libraries (getpid, __getpid); then the longer.
        bind = chosen["info"] >> 4
        rank = np.where(bind == 2, 0, np.where(bind == 1, 1, 2))
        order = np.lexsort((-chosen["size"].astype(np.int64), rank, chosen["value"]))
        chosen = chosen[order]
        first = np.ones(len(chosen), dtype=bool)
        first[1:] = chosen["value"][1:] != chosen["value"][:-1]
        chosen = chosen[first]
        self.starts = np.ascontiguousarray(chosen["value"])
        self._sizes = np.ascontiguousarray(chosen["size"])
        self._names = np.ascontiguousarray(chosen["name"])
        self._read = read
        self._strings_at = strings_at
        self._strings_size = strings_size

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.starts.nbytes + self._sizes.nbytes + self._names.nbytes)

    def find(self, vaddrs: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the index of the function that holds each address, -1 where there is none.

        A symbol without a size (hand-written assembly) reaches up to the next one.
        """
        if not len(self.starts):
            return np.full(len(vaddrs), -1, dtype=np.int64)
        at = np.searchsorted(self.starts, vaddrs, side="right").astype(np.int64) - 1
        safe = np.maximum(at, 0)
        inside = (self._sizes[safe] == 0) | (vaddrs - self.starts[safe] < self._sizes[safe])
        return np.where((at >= 0) & inside, at, -1)

    def name(self, index: int) -> str:
        """Return the (mangled) name of one function, "" when it cannot be read."""
        offset = int(self._names[index])
        if offset >= self._strings_size:
            return ""
        for size in (128, MAX_NAME):
            raw = self._read(self._strings_at + offset, min(size, self._strings_size - offset))
            end = raw.find(b"\0")
            if end >= 0:
                return raw[:end].decode("utf-8", "replace")
        return raw.decode("utf-8", "replace")


class Elf:
    """One ELF file: its build id, where its code lies, and its function symbols.

    Raises:
        ValueError: not a 64-bit little-endian ELF file, or damaged beyond use.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        raw = read(0, 64)
        if len(raw) < 64 or raw[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        header = np.frombuffer(raw, _EHDR)[0]
        self._segments = self._table(int(header["phoff"]), int(header["phentsize"]), int(header["phnum"]), _PHDR)
        self._sections = self._table(int(header["shoff"]), int(header["shentsize"]), int(header["shnum"]), _SHDR)
        self._names_section = int(header["shstrndx"])
        self.build_id = self._find_build_id()

    def _table(self, offset: int, entry: int, count: int, kind: np.dtype[np.void]) -> NDArray[np.void]:
        if not offset or entry != kind.itemsize or count > MAX_SECTIONS:
            return np.zeros(0, kind)
        raw = self._read(offset, entry * count)
        return np.frombuffer(raw[: len(raw) // entry * entry], kind)

    def vaddr_of_offset(self, offsets: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the address that each file offset is linked at; 0 where no executable segment holds it."""
        result = np.zeros(len(offsets), dtype=np.uint64)
        page = np.uint64(0xFFF)
        for segment in self._segments:
            if segment["type"] != _PT_LOAD or not segment["flags"] & _PF_X:
                continue
            start = segment["offset"] & ~page
            # From its start on, so that no sum of a damaged file's numbers can wrap.
            inside = (offsets >= start) & (offsets - start < segment["filesz"] + (segment["offset"] & page))
            result[inside] = offsets[inside] - segment["offset"] + segment["vaddr"]
        return result

    def symbols(self) -> SymbolTable | None:
        """Return the functions of ``.symtab``, else of ``.dynsym``; None when the file has neither."""
        for wanted in (_SHT_SYMTAB, _SHT_DYNSYM):
            for section in self._sections:
                if section["type"] != wanted or section["entsize"] != _SYM.itemsize:
                    continue
                table = self._symbol_table(section)
                if table is not None and len(table):
                    return table
        return None

    def function_offsets(self, names: Collection[str]) -> dict[str, int]:
        """Return where functions begin, as offsets in the file; those that it does not define are left out."""
        found: dict[str, int] = {}
        for wanted in (_SHT_DYNSYM, _SHT_SYMTAB):
            for section in self._sections:
                if section["type"] == wanted and section["entsize"] == _SYM.itemsize and len(found) < len(names):
                    found = self._addresses(section, names) | found
        code = [each for each in self._segments if each["type"] == _PT_LOAD and each["flags"] & _PF_X]
        return {
            name: address - int(each["vaddr"]) + int(each["offset"])
            for name, address in found.items()
            for each in code
            if 0 <= address - int(each["vaddr"]) < int(each["filesz"])
        }

    def _addresses(self, section: np.void, names: Collection[str]) -> dict[str, int]:
        link, size = int(section["link"]), int(section["size"])
        if link >= len(self._sections) or size > MAX_SYMBOLS * _SYM.itemsize:
            return {}
        raw = self._read(int(section["offset"]), size)
        symbols = np.frombuffer(raw[: len(raw) // _SYM.itemsize * _SYM.itemsize], _SYM)
        symbols = symbols[((symbols["info"] & 0xF) == _STT_FUNC) & (symbols["shndx"] != 0)]
        strings = self._sections[link]
        text = self._read(int(strings["offset"]), min(int(strings["size"]), MAX_STRINGS))
        found = {}
        for name in names:
            # One name may be the end of another in the file: every place where it ends right may be meant.
            ends = re.finditer(re.escape(name.encode()) + b"\0", text)
            chosen = symbols[np.isin(symbols["name"], [each.start() for each in ends])]
            if len(chosen):
                found[name] = int(chosen["value"][0])
        return found

    @property
    def has_symtab(self) -> bool:
        """Whether the full symbol table is there (a stripped file has the dynamic one only)."""
        return bool(np.any(self._sections["type"] == _SHT_SYMTAB))

    def _symbol_table(self, section: np.void) -> SymbolTable | None:
        link, size = int(section["link"]), int(section["size"])
        if link >= len(self._sections) or size > MAX_SYMBOLS * _SYM.itemsize:
            return None
        raw = self._read(int(section["offset"]), size)
        symbols = np.frombuffer(raw[: len(raw) // _SYM.itemsize * _SYM.itemsize], _SYM)
        strings = self._sections[link]
        return SymbolTable(self._read, symbols, int(strings["offset"]), int(strings["size"]))

    def mini_debug_info(self) -> Elf | None:
        """Return the ELF file inside ``.gnu_debugdata`` (xz, bounded), None when there is none."""
        section = self._section(b".gnu_debugdata")
        if section is None or int(section["size"]) > MAX_MINI_DEBUG:
            return None
        try:
            data = lzma.LZMADecompressor(memlimit=1 << 27).decompress(
                self._read(int(section["offset"]), int(section["size"])), max_length=MAX_MINI_DEBUG
            )
            return Elf(reader_of_bytes(data))
        except (lzma.LZMAError, ValueError, EOFError):
            return None

    def _section(self, name: bytes) -> np.void | None:
        if self._names_section >= len(self._sections):
            return None
        names = self._sections[self._names_section]
        text = self._read(int(names["offset"]), min(int(names["size"]), 1 << 20))
        for section in self._sections:
            at = int(section["name"])
            if text[at : at + len(name) + 1] == name + b"\0":
                found: np.void = section
                return found
        return None

    def _find_build_id(self) -> str:
        places = [(s["offset"], s["filesz"]) for s in self._segments if s["type"] == _PT_NOTE]
        places += [(s["offset"], s["size"]) for s in self._sections if s["type"] == _SHT_NOTE]
        for offset, size in places:
            found = _build_id_in(self._read(int(offset), min(int(size), 65536)))
            if found:
                return found
        return ""


def _build_id_in(notes: bytes) -> str:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = (int(v) for v in np.frombuffer(notes, "<u4", 3, at))
        name = notes[at + 12 : at + 12 + name_size]
        start = at + 12 + (name_size + 3) // 4 * 4
        if kind == _NT_GNU_BUILD_ID and name == b"GNU\0" and 0 < size <= 64:
            return notes[start : start + size].hex()
        at = start + (size + 3) // 4 * 4
    return ""
