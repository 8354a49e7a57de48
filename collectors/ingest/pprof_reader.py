"""Which reader of pprof's wire the push endpoint uses: the compiled one from the moment it is ready, else NumPy's.

Compiling takes some seconds, reading what was compiled before a third of one. Profiles that arrive meanwhile, or where
numba is not installed, are read by ``pprof_tables``, to the same tables.
"""

from __future__ import annotations

import gc
import logging
import threading
import time

from collectors.scrapers import pprof_tables
from collectors.scrapers.pprof import Read
from collectors.scrapers.pprof_tables import Tables

_LOG = logging.getLogger(__name__)
_read: Read = pprof_tables.read


def read(raw: bytes) -> Tables:
    """Return the tables of a profile.

    Raises:
        CorruptRecordError: as ``pprof_tables.read``.
    """
    return _read(raw)


def prepare() -> threading.Thread:
    """Make the compiled reader ready on a thread of its own, which is returned."""
    thread = threading.Thread(target=_prepare, name="compile", daemon=True)
    thread.start()
    return thread


def _prepare() -> None:
    global _read
    began = time.monotonic()
    try:
        from collectors.ingest import pprof_compiled

        pprof_compiled.tables(b"")
    except ImportError as error:
        _LOG.info("profiles are read by NumPy: numba is not installed", extra={"reason": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever ails the compiler or its cache, profiles are read as before
        reason = f"{type(error).__name__}: {error}"[:300]
        _LOG.warning("profiles are read by NumPy: cannot compile", extra={"reason": reason})
    else:
        _read = pprof_compiled.read
        # The compiler's objects live until the end, and need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        _LOG.info("profiles are read by compiled code", extra={"after_s": round(time.monotonic() - began, 3)})
