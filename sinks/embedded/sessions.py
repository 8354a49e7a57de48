"""Sessions: temporary tables, ``SET`` and ``USE`` that outlive a request (``session_id``)."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sinks.embedded.engine import Connection, Engine, quote
from sinks.embedded.errors import QueryError

DEFAULT_S = 60.0
MAX_S = 3600.0
_UNESCAPE = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}


@dataclass(slots=True)
class Session:
    """One session. It gets a connection of its own with the first statement that changes it, and not before."""

    timeout_s: float
    last_used: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    connection: Connection | None = None


class Sessions:
    """All sessions, by (user, id). Bounded; expired ones are dropped by ``sweep``."""

    def __init__(self, engine: Engine, bound: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._bound = bound
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}
        self._lock = threading.Lock()

    def acquire(self, user: str, name: str, timeout: str, *, check: bool) -> Session:
        """Return a session, locked for this request; it is made when it does not exist.

        Raises:
            QueryError: 374 for a bad timeout, 372 when it must exist and does not, 373 when another request holds it,
                202 when there are too many.
        """
        try:
            seconds = float(timeout) if timeout else DEFAULT_S
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= MAX_S:
            raise QueryError.of(374, "INVALID_SESSION_TIMEOUT", f"Invalid session timeout: {timeout[:32]}")
        self.sweep()
        now = self._clock()
        with self._lock:
            session = self._sessions.get((user, name))
            if session is None:
                if check:
                    raise QueryError.of(372, "SESSION_NOT_FOUND", "Session not found")
                if len(self._sessions) >= self._bound and not self._drop_idle():
                    raise QueryError.of(202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many sessions")
                session = self._sessions[user, name] = Session(seconds, now)
            if not session.lock.acquire(blocking=False):
                raise QueryError.of(373, "SESSION_IS_LOCKED", "Session is locked by a concurrent client")
            session.timeout_s = seconds
        return session

    def release(self, session: Session) -> None:
        """Let the next request have the session."""
        session.last_used = self._clock()
        session.lock.release()

    def _drop_idle(self) -> bool:
        # A session without a connection holds no state: forgetting it changes nothing for its client.
        for key, session in self._sessions.items():
            if session.connection is None and not session.lock.locked():
                del self._sessions[key]
                return True
        return False

    def sweep(self) -> None:
        """Close the sessions that nobody used for as long as they asked to be kept."""
        now = self._clock()
        gone: list[Session] = []
        with self._lock:
            for key, session in list(self._sessions.items()):
                if now - session.last_used > session.timeout_s and session.lock.acquire(blocking=False):
                    gone.append(self._sessions.pop(key))
        for session in gone:
            if session.connection is not None:
                session.connection.close()

    def close(self) -> None:
        """Close all that no request holds; for stopping."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            if session.lock.acquire(blocking=False) and session.connection is not None:
                session.connection.close()


def current_database(connection: Connection) -> str:
    """Return the name of the database that a connection uses."""
    return _plain(connection.text("SELECT currentDatabase()").rstrip("\n"))


def remember(connection: Connection, names: Iterable[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return (database, {setting: value now}, settings at their default), to undo one request's settings later."""
    database = current_database(connection)
    listed = "[" + ", ".join(quote(name) for name in names) + "]"
    rows = connection.text(
        "SELECT name, value, changed FROM system.settings WHERE has({names:Array(String)}, name)", {"names": listed}
    )
    values: dict[str, str] = {}
    defaults: list[str] = []
    for line in rows.splitlines():
        name, value, changed = line.split("\t")
        if changed == "1":
            values[name] = _plain(value)
        else:
            defaults.append(name)
    return database, values, defaults


def restore(connection: Connection, before: tuple[str, dict[str, str], list[str]]) -> None:
    """Undo one request's settings. Raises QueryError when the session is beyond repair (drop it then)."""
    database, values, defaults = before
    if defaults:
        connection.execute("SET " + ", ".join(f"{name} = DEFAULT" for name in defaults))
    connection.set(values)
    connection.use(database)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _UNESCAPE.get(found.group(1), found.group(1)), text)
