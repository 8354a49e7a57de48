"""Field offsets and type ids of the running kernel, from its own BTF. Never from headers, which lie about layouts.

Used by the short-lived compiler only: reading 5 MB of type records takes about half a second.
Format: Linux ``Documentation/bpf/btf.rst``.
"""

from __future__ import annotations

import struct
from pathlib import Path

from streams.schema.errors import KernelError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_STRUCT, _UNION, _TYPEDEF = 4, 5, 8
_MODIFIERS = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type tag
# Bytes that follow the 12 of a type record: (fixed, for each of vlen), by kind.
_TAIL = {
    1: (4, 0),
    3: (12, 0),
    4: (0, 12),
    5: (0, 12),
    6: (0, 8),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    17: (4, 0),
    19: (0, 12),
}


class Btf:
    """The types of one kernel."""

    def __init__(self, path: Path = VMLINUX) -> None:
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise KernelError(
                f"{path}: {error.strerror}; this kernel was built without CONFIG_DEBUG_INFO_BTF, use one that has it"
            ) from error
        magic, _version, _flags, header, type_at, type_size, text_at, _size = struct.unpack_from(
            "<HBBIIIII", self._data
        )
        if magic != 0xEB9F:
            raise KernelError(f"{path}: not BTF of this machine's byte order")
        self._text = header + text_at
        self._at: list[int] = [0]
        self._named: dict[tuple[int, str], int] = {}
        self._index(header + type_at, header + type_at + type_size)

    def _index(self, at: int, end: int) -> None:
        data, wanted = self._data, frozenset({_STRUCT, _UNION, _TYPEDEF})
        unpack = struct.Struct("<II").unpack_from
        while at < end:
            name, info = unpack(data, at)
            kind, count = (info >> 24) & 31, info & 0xFFFF
            if name and kind in wanted:
                self._named.setdefault((kind, self._string(name)), len(self._at))
            self._at.append(at)
            fixed, each = _TAIL.get(kind, (0, 0))
            at += 12 + fixed + each * count

    def _string(self, offset: int) -> str:
        start = self._text + offset
        return self._data[start : self._data.index(b"\0", start)].decode()

    def typedef_id(self, name: str) -> int:
        """Return the type id of a typedef, such as ``btf_trace_sched_switch``."""
        try:
            return self._named[_TYPEDEF, name]
        except KeyError:
            raise KernelError(f"this kernel's BTF has no {name}; it lacks that tracepoint") from None

    def offset(self, path: str) -> int:
        """Return the byte offset of ``struct.member[.member]``; anonymous members are searched through.

        With a question mark behind it, -1 where there is none.

        Raises:
            KernelError: this kernel has no such field, or it is a bit field.
        """
        if path.endswith("?"):
            try:
                return self.offset(path.removesuffix("?"))
            except KernelError:
                return -1
        name, *members = path.split(".")
        type_id = self._named.get((_STRUCT, name)) or self._named.get((_UNION, name))
        bits = 0
        for member in members:
            found = self._member(type_id, member) if type_id else None
            if found is None:
                raise KernelError(f"this kernel's BTF has no field {path}")
            bits += found[0]
            type_id = self._plain(found[1])
        if bits % 8:
            raise KernelError(f"{path} is a bit field")
        return bits // 8

    def _member(self, type_id: int, wanted: str) -> tuple[int, int] | None:
        at = self._at[type_id]
        info = struct.unpack_from("<I", self._data, at + 4)[0]
        for number in range(info & 0xFFFF):
            name, kind, offset = struct.unpack_from("<III", self._data, at + 12 + 12 * number)
            if info >> 31:
                offset &= 0xFFFFFF
            if name and self._string(name) == wanted:
                return offset, kind
            if not name and (inner := self._plain(kind)):
                found = self._member(inner, wanted)
                if found:
                    return offset + found[0], found[1]
        return None

    def _plain(self, type_id: int) -> int:
        """Return the struct or union behind typedefs and qualifiers; 0 when it is something else."""
        while type_id:
            info, target = struct.unpack_from("<II", self._data, self._at[type_id] + 4)
            kind = (info >> 24) & 31
            if kind in (_STRUCT, _UNION):
                return type_id
            if kind not in _MODIFIERS:
                return 0
            type_id = target
        return 0
