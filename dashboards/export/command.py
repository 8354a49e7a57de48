"""``perfstream profile export``: any selection for another program."""

from __future__ import annotations

import sys
from pathlib import Path

from streams.schema.errors import PerfstreamError, UsageError

FORMATS = ("pprof", "folded", "speedscope")


def write(data: bytes, output: str, form: str) -> None:
    """Write an export to a file with the folders that it needs, or with ``-`` to standard output.

    Raises:
        UsageError: bytes would go to a terminal.
        PerfstreamError: the file cannot be written.
    """
    if output == "-":
        if form == "pprof" and sys.stdout.isatty():
            raise UsageError("pprof is binary; write it to a file with -o FILE")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise PerfstreamError(f"cannot write {path}: {error.strerror}; choose another file with -o") from error
