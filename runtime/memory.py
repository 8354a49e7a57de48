"""Where Arrow gets its memory from."""

from __future__ import annotations


def use_malloc() -> None:
    """Let Arrow allocate with ``malloc`` in this process; call it before anything of Arrow's is made.

    Its own allocator (mimalloc) gives pages back to the kernel and asks for them again: with messages of a few MB that
    live for a second or so, page faults were half of what decoding cost.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
