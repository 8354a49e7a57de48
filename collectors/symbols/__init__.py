"""Addresses to names: the kernel's symbols, ELF files, mini debug info, JIT maps; while the process lives.

``Symbolizer`` is the door; everything else here is its parts.
"""

from collectors.symbols.symbolizer import Symbolizer

__all__ = ["Symbolizer"]
