"""A file's path as the kernel programs send it (``collectors/bpf/path.h``)."""

from __future__ import annotations

import struct


def path_of(raw: bytes | None) -> str:
    """Return the path that stands in a ``file_path``, "" when there is none."""
    if raw is None:
        return ""
    length, whole = struct.unpack_from("<II", raw)
    return joined(raw[8 : 8 + length], whole=bool(whole))


def joined(names: bytes, *, whole: bool) -> str:
    """Return the path of names from the leaf on, each with its end; not ``whole``: its beginning is missing."""
    parts = names.split(b"\0")[:-1]
    return ("/" if whole else "…/") + b"/".join(reversed(parts)).decode(errors="replace")
