"""One supervised child process: start it, notice its end, restart it with back-off, end it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    # Should the supervisor itself be killed, no stage may stay behind.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Stage:
    """A stage of the stack and the state of its process.

    ``backoff_s`` doubles with each early death, from 0.5 s up to 15 s, and starts anew after a steady run.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    metrics: str = ""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    restarts: int = 0
    backoff_s: float = 0.5
    next_start: float = 0.0
    last_exit: int | None = None
    cpu_seconds: float = field(default=0.0, repr=False)

    def start(self) -> None:
        """Start the process in a session of its own, its output appended to the stage's log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the supervisor has no threads when it starts children
            )
        self.started_at = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether the process exists now."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def tend(self, now: float, steady_s: float) -> bool:
        """Notice a death, restart when its time has come; returns whether it died just now."""
        if self.process is None:
            if now >= self.next_start:
                self.restarts += 1
                self.start()
            return False
        status = self.process.poll()
        if status is None:
            if now - self.started_at > steady_s:
                self.deaths, self.backoff_s = 0, 0.5
            return False
        self.last_exit, self.process = status, None
        self.deaths += 1
        self.next_start = now + self.backoff_s
        self.backoff_s = min(self.backoff_s * 2, 15.0)
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the process and what it has started."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def last_words(self, lines: int = 3) -> str:
        """Return the end of the stage's log, for an error message."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 4096))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(line[:300] for line in text.strip().splitlines()[-lines:])


def stop(stages: Sequence[Stage], timeout_s: float) -> None:
    """End stages in the order given: ask politely, wait within one bound for all, then by force."""
    deadline = time.monotonic() + timeout_s
    for stage in stages:
        stage.signal(signal.SIGTERM)
        # The earlier ones get a moment to hand over what they hold before the later ones go.
        grace = min(deadline, time.monotonic() + timeout_s / max(2, len(stages)))
        while stage.running and time.monotonic() < grace:
            time.sleep(0.02)
    while any(stage.running for stage in stages) and time.monotonic() < deadline:
        time.sleep(0.02)
    for stage in stages:
        stage.signal(signal.SIGKILL)
        if stage.process is not None:
            stage.process.wait()
