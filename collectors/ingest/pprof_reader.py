"""How the push endpoint reads pprof: by compiled code from the moment that it is ready, else by NumPy and Python.

Compiling takes some seconds, reading what was compiled before a third of one. Profiles that arrive meanwhile, or where
numba is not installed, are read by ``pprof_tables`` and ``pprof`` alone, to the same profiles.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from collectors.ingest.inflate import inflate
from collectors.scrapers import pprof, pprof_tables
from collectors.scrapers.pprof import MAX_BYTES, Profile, Read, Rename, Stack
from streams.schema import stack_columns
from streams.schema.stack_columns import StackColumns

_LOG = logging.getLogger(__name__)
_Words = NDArray[np.uint64]
_Places = NDArray[np.int64] | NDArray[np.int32]


class Again(NamedTuple):
    """How stacks are known again, by machine code: the functions of ``stack_digests``."""

    digests: Callable[[StackColumns], _Words]
    find: Callable[[_Words, _Words, _Words], tuple[_Words, int]]
    add: Callable[[_Words, _Words, _Words, _Words], int]
    merged: Callable[[Sequence[StackColumns]], StackColumns]
    first_seen: Callable[[_Words], tuple[_Places, _Places]]


_read: Read = pprof_tables.read
_stack: Stack | None = None
_again: Again | None = None


def decode(data: bytes, bound: int = MAX_BYTES, renamed: Rename | None = None) -> Profile:
    """Return a profile, as ``pprof.decode``.

    Raises:
        CorruptRecordError: as there.
    """
    return pprof.decode(data, bound, renamed, _read, _stack, inflate)


def again() -> Again | None:
    """Return how stacks are known again; None until that is compiled."""
    return _again


def merged(parts: Sequence[StackColumns]) -> StackColumns:
    """Return the stacks of all parts, as ``stack_columns.merged``."""
    return stack_columns.merged(parts) if _again is None else _again.merged(parts)


def first_seen(ids: _Words) -> tuple[_Places, _Places]:
    """Return (which of the distinct ids each is, where each distinct one stands first), as they are first seen."""
    if _again is not None:
        return _again.first_seen(ids)
    _, first, number = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[number], first[order]


def compiled_again() -> Again:
    """Return the functions of machine code; the first call of each compiles, or reads what was compiled before.

    Raises:
        ImportError: numba is not installed.
    """
    from collectors.ingest import stack_digests as by

    return Again(by.digests, by.find, by.add, by.merged, by.first_seen)


def prepare() -> threading.Thread:
    """Make the compiled reader ready on a thread of its own, which is returned."""
    thread = threading.Thread(target=_prepare, name="compile", daemon=True)
    thread.start()
    return thread


def _prepare() -> None:
    global _read, _stack, _again
    began = time.monotonic()
    try:
        from collectors.ingest import pprof_compiled, pprof_stacks, stack_digests

        pprof_compiled.tables(b"")
        pprof_stacks.code()
        stack_digests.code()
    except ImportError as error:
        _LOG.info("profiles are read by NumPy: numba is not installed", extra={"reason": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever ails the compiler or its cache, profiles are read as before
        reason = f"{type(error).__name__}: {error}"[:300]
        _LOG.warning("profiles are read by NumPy: cannot compile", extra={"reason": reason})
    else:
        _read, _stack = pprof_compiled.read, pprof_stacks.stacks
        _again = compiled_again()
        # The compiler's objects live until the end, and need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        _LOG.info("profiles are read by compiled code", extra={"after_s": round(time.monotonic() - began, 3)})
