"""Both readers of pprof's wire give the same tables, or refuse in the same words."""

import dataclasses

from collectors.ingest import pprof_compiled
from collectors.scrapers import pprof, pprof_tables
from streams.schema.errors import CorruptRecordError


def _read(reader, raw):
    try:
        return reader(raw), ""
    except CorruptRecordError as error:
        return None, str(error)


def agree(raw: bytes) -> bool:
    """Return whether the bytes were taken, by both."""
    found = pprof_compiled.tables(raw)
    wanted, message = _read(pprof_tables.read, raw)
    assert (found is None) == (wanted is None), message or "NumPy takes it"
    if wanted is None:
        assert _read(pprof_compiled.read, raw) == (None, message)
        return False
    for column in dataclasses.fields(wanted):
        ours, theirs = getattr(found, column.name), getattr(wanted, column.name)
        if isinstance(theirs, int):
            assert (column.name, ours) == (column.name, theirs)
            continue
        assert (column.name, ours.dtype, ours.shape) == (column.name, theirs.dtype, theirs.shape)
        assert ours.tolist() == theirs.tolist(), column.name
    return True


def decoded(data: bytes, bound: int = pprof.MAX_BYTES, inflate=pprof.inflate, read=pprof_tables.read, stack=None):
    """Return the profile, or why there is none."""
    try:
        return pprof.decode(data, bound, None, read, stack, inflate)
    except CorruptRecordError as error:
        return str(error)
