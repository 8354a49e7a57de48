"""The files of a shared library on this node, one for each version and image that a process has mapped.

Reads ``/proc/PID/maps`` of every process: about 0.2 ms for each. A file is reached through its process's own root, so
that one in a container is the container's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from streams.schema.errors import KernelError

MAX_FILES = 64
MAX_MAPS = 4 << 20
AGAIN_S = 5.0
SHARE = 100


class Libraries:
    """Attaches programs to every file of a library, and looks for new ones now and then.

    Every ``AGAIN_S``, but never in more than a hundredth of the time. Files that no process has mapped any more are let
    go, but for those that are installed where libraries usually are.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        attach: Callable[[str], list[int]],
        detach: Callable[[list[int]], None],
        proc: Path = Path("/proc"),
    ) -> None:
        self._names, self._attach, self._detach, self._proc = names, attach, detach, proc
        self._attached: dict[tuple[int, int], list[int]] = {}
        self._installed: frozenset[tuple[int, int]] | None = None
        self._at = 0.0

    def look(self) -> None:
        """Look when it is time to."""
        began = time.monotonic()
        if began < self._at:
            return
        if self._installed is None:
            self._installed = frozenset(self._take(installed(self._names)))
        there = self._take(mapped(self._names, self._proc).values())
        for file in self._attached.keys() - there - self._installed:
            self._detach(self._attached.pop(file))
        took = time.monotonic() - began
        self._at = began + max(AGAIN_S, SHARE * took)

    def _take(self, paths: Iterable[str]) -> set[tuple[int, int]]:
        there = set()
        for path in paths:
            with suppress(OSError):  # it is gone
                status = Path(path).stat()
                file = (status.st_dev, status.st_ino)
                there.add(file)
                if file not in self._attached and len(self._attached) < 2 * MAX_FILES:
                    self._attached[file] = []
                    with suppress(KernelError):  # it has none of the functions
                        self._attached[file] = self._attach(path)
        return there


def mapped(names: tuple[str, ...], proc: Path = Path("/proc")) -> dict[tuple[str, str], str]:
    """Return {(device, inode): path to open} of mapped files whose name begins with one of ``names``."""
    found: dict[tuple[str, str], str] = {}
    wanted = tuple(b"/" + name.encode() for name in names)
    for pid in sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit()):
        try:
            with (proc / str(pid) / "maps").open("rb") as file:
                text = file.read(MAX_MAPS)
        except OSError:
            continue  # it has ended, or is somebody else's
        if not any(name in text for name in wanted):
            continue
        for device, inode, path in _files(text, wanted):
            found.setdefault((device, inode), f"{proc}/{pid}/root{path}")
        if len(found) >= MAX_FILES:
            break
    return found


def installed(names: tuple[str, ...]) -> Iterator[str]:
    """Yield files in the usual folders, for when no process has mapped one yet."""
    for folder in ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"):
        for name in names:
            for pattern in (f"{name}*", f"*-linux-gnu/{name}*"):
                yield from (str(path) for path in sorted(Path(folder).glob(pattern)) if path.is_file())


def _files(text: bytes, wanted: tuple[bytes, ...]) -> Iterator[tuple[str, str, str]]:
    for line in text.split(b"\n"):
        parts = line.split(None, 5)
        if len(parts) == 6 and b"x" in parts[1] and not parts[5].endswith(b" (deleted)"):
            path = parts[5]
            if path[path.rfind(b"/") :].startswith(wanted):
                yield parts[3].decode(), parts[4].decode(), os.fsdecode(path)
