"""Changes of the mount tree: mount, umount, move_mount, pivot_root, fsopen and fsmount, with what, where and result.

Paths are the callers' own, in their mount namespace. Not: a file system's options, which may hold passwords;
mount_setattr, and trees that are copied (open_tree) before they are placed. Cost: 2 microseconds for such a call.
"""

from __future__ import annotations

import struct

from collectors.calls import CallCollector
from collectors.events import Attributes, text

_LAYOUT = struct.Struct("<QIiii128s128s32s")
_OPERATIONS = ("mount", "umount", "move_mount", "pivot_root", "fsopen", "fsmount")
# Linux include/uapi/linux/mount.h and include/linux/fs.h
_MOUNT = {
    "MS_RDONLY": 1, "MS_NOSUID": 2, "MS_NODEV": 4, "MS_NOEXEC": 8, "MS_SYNCHRONOUS": 16, "MS_REMOUNT": 32,
    "MS_MANDLOCK": 64, "MS_DIRSYNC": 128, "MS_NOSYMFOLLOW": 256, "MS_NOATIME": 1024, "MS_NODIRATIME": 2048,
    "MS_BIND": 4096, "MS_MOVE": 8192, "MS_REC": 1 << 14, "MS_SILENT": 1 << 15, "MS_POSIXACL": 1 << 16,
    "MS_UNBINDABLE": 1 << 17, "MS_PRIVATE": 1 << 18, "MS_SLAVE": 1 << 19, "MS_SHARED": 1 << 20,
    "MS_RELATIME": 1 << 21, "MS_STRICTATIME": 1 << 24, "MS_LAZYTIME": 1 << 25,
}  # fmt: skip
_UMOUNT = {"MNT_FORCE": 1, "MNT_DETACH": 2, "MNT_EXPIRE": 4, "UMOUNT_NOFOLLOW": 8}
_ATTRIBUTES = {
    "MOUNT_ATTR_RDONLY": 1, "MOUNT_ATTR_NOSUID": 2, "MOUNT_ATTR_NODEV": 4, "MOUNT_ATTR_NOEXEC": 8,
    "MOUNT_ATTR_NOATIME": 16, "MOUNT_ATTR_STRICTATIME": 32, "MOUNT_ATTR_NODIRATIME": 128, "MOUNT_ATTR_IDMAP": 1 << 20,
    "MOUNT_ATTR_NOSYMFOLLOW": 1 << 21,
}  # fmt: skip
_NAMES = {"mount": _MOUNT, "umount": _UMOUNT, "fsmount": _ATTRIBUTES}


class Mount(CallCollector):
    """Events of kind ``mount``; detail is the operation, the type and the place, result 0 or -errno."""

    name = "mount"
    source = "mount.bpf.c"
    detail_bytes = _LAYOUT.size
    ring_bytes = 1 << 18

    def describe_detail(self, detail: bytes) -> tuple[str, Attributes]:
        """Return what was done where; each part is an attribute, too."""
        flags, number, from_fd, to_fd, fd, raw_source, raw_target, raw_type = _LAYOUT.unpack(detail)
        operation = _OPERATIONS[number]
        source, target, kind = text(raw_source), text(raw_target), text(raw_type)
        if not source and from_fd >= 0:
            source = f"fd {from_fd}"
        if operation == "move_mount" and to_fd >= 0 and not target.startswith("/"):
            target = f"fd {to_fd}/{target}".removesuffix("/")
        parts = (("source", source), ("target", target), ("type", kind), ("flags", flags_text(operation, flags)))
        attributes = [("operation", operation), *(part for part in parts if part[1])]
        if fd >= 0:
            attributes.append(("fd", str(fd)))
        return " ".join([operation, *(word for word in (kind, target) if word)]), attributes


def flags_text(operation: str, flags: int) -> str:
    """Return the flags of an operation by name; bits without a name as a number, "" for none."""
    names = []
    if operation == "mount" and flags >> 16 == 0xC0ED:  # how programs of the first days said that there are flags
        flags &= 0xFFFF
    for name, bit in _NAMES.get(operation, {}).items():
        if flags & bit:
            names.append(name)
            flags &= ~bit
    return "|".join([*names, *([f"{flags:#x}"] if flags else [])])
