"""How much runs at once: slots for statements, and a watch that ends those whose client has gone."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sinks.embedded.engine import Engine
from sinks.embedded.errors import QueryError


class Slots:
    """At most ``bound`` holders at once, ``queued`` waiting for at most ``timeout_s``; others are refused (202)."""

    def __init__(self, bound: int, queued: int, timeout_s: float) -> None:
        self._free = threading.Semaphore(bound)
        self._queued = queued
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._waiting = 0
        self.running = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold one slot for a block.

        Raises:
            QueryError: 202, none came free in time or too many wait already.
        """
        if not self._free.acquire(blocking=False):
            self._wait()
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1
            self._free.release()

    def _wait(self) -> None:
        with self._lock:
            full = self._waiting >= self._queued
            self._waiting += 0 if full else 1
        if not full:
            try:
                if self._free.acquire(timeout=self._timeout_s):
                    return
            finally:
                with self._lock:
                    self._waiting -= 1
        raise QueryError.of(
            202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries; try again in a moment"
        )


class Watch:
    """Ends the statements of clients that hung up. One thread; idle while nothing runs for longer than a moment."""

    PERIOD_S = 0.25

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._running: dict[str, tuple[socket.socket, float]] = {}
        self._busy = threading.Event()
        self.cancelled = 0
        threading.Thread(target=self._loop, name="watch", daemon=True).start()

    @contextmanager
    def over(self, tag: str, client: socket.socket) -> Iterator[None]:
        """Watch a client's socket during a block."""
        with self._lock:
            self._running[tag] = (client, time.monotonic())
        self._busy.set()
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(tag, None)

    def _loop(self) -> None:
        while True:
            self._busy.wait()
            time.sleep(self.PERIOD_S)
            with self._lock:
                running = dict(self._running)
                if not running:
                    self._busy.clear()
                    continue
            for tag in self._gone(running):
                with self._lock:
                    self._running.pop(tag, None)
                self.cancelled += 1
                self._engine.kill(tag)

    def _gone(self, running: dict[str, tuple[socket.socket, float]]) -> list[str]:
        poll = select.poll()
        tags: dict[int, str] = {}
        young = time.monotonic() - self.PERIOD_S
        for tag, (client, since) in running.items():
            number = client.fileno()
            if since < young and number >= 0:
                tags[number] = tag
                poll.register(number, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return [tags[number] for number, _event in poll.poll(0)] if tags else []
