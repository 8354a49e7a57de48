"""Mangled names to readable ones: Rust (legacy and v0) and C++ (Itanium).

C++ goes through ``__cxa_demangle`` of the C++ runtime (Itanium C++ ABI, 3.3.3) when the machine has one; without it
those names stay mangled. The hash that ends a legacy Rust name is left out: it is new in each build, so that two
versions of a service would share no function.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from functools import lru_cache

from rust_demangler import demangle as rust_demangle

_LEGACY_RUST = re.compile(r"^_ZN.*17h[0-9a-f]{16}E(\.|$)")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_CRATE_HASH = re.compile(r"\[[0-9a-f]{6,16}\]")
_LLVM_SUFFIX = re.compile(r"\.llvm\.[0-9A-F]+$")
_LONGEST = 8192


class _Cxx:
    """The C++ runtime's demangler; ``available`` is False where the library is missing."""

    def __init__(self) -> None:
        self.available = False
        for name in ("libstdc++.so.6", "libc++abi.so.1"):
            try:
                library = ctypes.CDLL(name)
                self._demangle = getattr(library, "__cxa_demangle")
            except (OSError, AttributeError):
                continue
            self._demangle.restype = ctypes.c_void_p
            self._demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
            self._free = ctypes.CDLL(None).free
            self._free.argtypes = [ctypes.c_void_p]
            self._free.restype = None
            self.available = True
            return

    def __call__(self, name: str) -> str:
        status = ctypes.c_int(0)
        pointer = self._demangle(name.encode("utf-8", "surrogateescape"), None, None, ctypes.byref(status))
        if not pointer:
            return name
        try:
            return ctypes.string_at(pointer).decode("utf-8", "replace")
        finally:
            self._free(pointer)


@lru_cache(maxsize=1)
def _cxx() -> _Cxx:
    return _Cxx()


@lru_cache(maxsize=4096)
def demangle(name: str) -> str:
    """Return the readable form of a symbol's name; the name itself when it is not mangled or cannot be read."""
    if len(name) > _LONGEST or not name.startswith("_"):
        return name
    bare = _LLVM_SUFFIX.sub("", name)
    if name.startswith("_R"):
        return _CRATE_HASH.sub("", _rust(bare, name))
    if _LEGACY_RUST.match(bare):
        return _RUST_HASH.sub("", _rust(bare, name))
    if name.startswith("_Z") and _cxx().available:
        readable = _cxx()(bare)
        return name if readable == bare else readable
    return name


def _rust(bare: str, name: str) -> str:
    try:
        readable = rust_demangle(bare)
    except Exception:  # noqa: BLE001 - the names come from files of any origin, and the package raises many kinds
        return name
    return str(readable) if readable else name
