"""Keeps the environment out of ``/proc``, where SQL could read it.

The engine opens ``/proc/thread-self/schedstat`` in every thread of every statement, some 40 times an INSERT, and each
time that it may not it throws an exception, which was a fifth of what a small INSERT cost. The directory that holds the
file holds ``environ`` too: the variables as the program was started with them, passwords among them. So the program
starts itself once more with none but harmless ones, and gets the others through a file in memory.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_HANDED = "_PERFSTREAM_ENVIRONMENT"
_KEPT = frozenset({"HOME", "LANG", "LANGUAGE", "PATH", "TERM", "TMPDIR", "TMP", "TEMP", "TZ", "USER", "VIRTUAL_ENV"})
_KEPT_PREFIXES = ("LC_", "LD_", "PYTHON", "MALLOC_")


def hide() -> None:
    """Return in a process whose ``/proc/self/environ`` tells nothing; ``os.environ`` is what it was.

    Call it before any thread starts: it may replace the program, under the same process id.
    """
    handed = os.environ.pop(_HANDED, "")
    if handed:
        with os.fdopen(int(handed), "rb") as file:
            file.seek(0)
            os.environ.update(json.load(file))
        return
    shown = {name: value for name, value in os.environ.items() if _harmless(name)}
    hidden = {name: value for name, value in os.environ.items() if name not in shown}
    if not hidden:
        return
    number = os.memfd_create("environment", 0)
    with os.fdopen(number, "wb", closefd=False) as file:
        file.write(json.dumps(hidden).encode())
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], shown | {_HANDED: str(number)})  # noqa: S606


def hidden() -> bool:
    """Return whether ``/proc/self/environ`` tells nothing."""
    given = Path("/proc/self/environ").read_bytes().split(b"\0")
    names = (os.fsdecode(entry.partition(b"=")[0]) for entry in given if entry)
    return all(_harmless(name) or name == _HANDED for name in names)


def _harmless(name: str) -> bool:
    return name in _KEPT or name.startswith(_KEPT_PREFIXES)
