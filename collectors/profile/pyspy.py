"""One run of py-spy: a process of its own that reads another's memory for some seconds and then tells what it saw.

It pauses nobody (``--nonblocking``): a stack that changes while it is read is left out, or rarely wrong. It writes into
memory of ours, ends by itself when we are gone, and is killed beyond its bounds.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from collectors.interpreted import Seen
from streams.schema.errors import CorruptRecordError
from streams.schema.stacks import frame_text, join

MAX_OUTPUT = 16 * 1024 * 1024
_MAX_CPU_S = 10
_OUT = 3
_BAD = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)


def find() -> str | None:
    """Return where py-spy is: beside our own interpreter, as the extra ``python`` installs it, or on the PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")


class Run:
    """Starts at once. The caller stops, reaps and closes it."""

    def __init__(self, binary: str, pid: int, rate: int, seconds: int) -> None:
        self.pid, self.rate = pid, rate
        self.cpu_ns = 0
        self._status: int | None = None
        self._out = os.memfd_create("py-spy")
        self._errors = os.memfd_create("py-spy-errors")
        arguments = [
            binary, "record", "--pid", str(pid), "--rate", str(rate), "--duration", str(seconds), "--nonblocking",
            "--full-filenames", "--format", "speedscope", "--output", f"/proc/self/fd/{_OUT}",
        ]  # fmt: skip
        try:
            self._child = os.posix_spawn(
                binary,
                arguments,
                {"LANG": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, self._errors, 2),
                    (os.POSIX_SPAWN_DUP2, self._out, _OUT),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM),
            )
        except BaseException:
            self.close()
            raise
        with suppress(OSError):  # it has ended
            resource.prlimit(self._child, resource.RLIMIT_FSIZE, (MAX_OUTPUT, MAX_OUTPUT))
            resource.prlimit(self._child, resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))

    def finish(self) -> None:
        """Ask it to write what it has seen."""
        self._send(signal.SIGINT)

    def kill(self) -> None:
        """End it without."""
        self._send(signal.SIGKILL)

    def reap(self, *, wait: bool = False) -> bool:
        """Return whether it has ended; then ``cpu_ns`` says what it cost."""
        if self._status is None:
            child, status, used = os.wait4(self._child, 0 if wait else os.WNOHANG)
            if child:
                self._status = status
                self.cpu_ns = round((used.ru_utime + used.ru_stime) * 1e9)
        return self._status is not None

    def seen(self) -> Seen:
        """Return what it saw.

        Raises:
            CorruptRecordError: it failed, or what it wrote cannot be read; the message is its own.
        """
        if self._status == signal.SIGINT:  # it was asked to finish before it had begun
            return Seen([], np.zeros(0, np.int64))
        if self._status != 0:
            lines = os.pread(self._errors, 4096, 0).decode("utf-8", "replace").splitlines()
            told = next((line.strip() for line in lines if line.strip()), f"it ended with status {self._status}")
            raise CorruptRecordError(told.removeprefix("Error: "))
        return decode(os.pread(self._out, MAX_OUTPUT, 0))

    def close(self) -> None:
        """Give its memory back."""
        os.close(self._out)
        os.close(self._errors)

    def _send(self, number: int) -> None:
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)


def decode(data: bytes) -> Seen:
    """Return the stacks of py-spy's speedscope file (one profile for each thread, samples root first).

    Raises:
        CorruptRecordError: it is none.
    """
    found: Counter[tuple[int, ...]] = Counter()
    try:
        document = json.loads(data)
        for profile in document["profiles"]:
            found.update(tuple(sample) for sample in profile["samples"] if sample)
        frames = [
            frame_text(str(frame["name"]), str(frame["file"] or ""), int(frame["line"] or 0))
            for frame in document["shared"]["frames"]
        ]
        texts = [join([frames[at] for at in stack]) for stack in found]
    except _BAD as error:
        raise CorruptRecordError(f"this is not what py-spy writes: {type(error).__name__}") from error
    return Seen(texts, np.array(list(found.values()), np.int64))
