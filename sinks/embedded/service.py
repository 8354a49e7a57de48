"""Runs requests: user and limits, session, settings, the statement itself, and its answer as chunks."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

from sinks.embedded import reader
from sinks.embedded.access import User
from sinks.embedded.engine import Connection, Engine, Stats
from sinks.embedded.errors import QueryError
from sinks.embedded.limits import Slots, Watch
from sinks.embedded.metrics import Metrics
from sinks.embedded.native import revised
from sinks.embedded.request import Request
from sinks.embedded.sessions import Session, Sessions, current_database, remember, restore
from sinks.embedded.settings import Options
from sinks.embedded.statement import STREAMED

Chunks = Iterable[Any]
Send = Callable[[Chunks, Stats], None]
"""Sends the answer: its chunks, and what was read and written (complete when the chunks are used up)."""

_CAPPED = {
    "max_execution_time": "reader_execution_s",
    "max_memory_usage": "reader_memory_bytes",
    "max_result_rows": "reader_result_rows",
}


class Service:
    """All that one process shares between requests."""

    def __init__(self, engine: Engine, options: Options, metrics: Metrics) -> None:
        self._engine = engine
        self._options = options
        self._metrics = metrics
        self.sessions = Sessions(engine, options.max_sessions)
        self.watch = Watch(engine)
        self._reads = Slots(options.max_queries, options.max_queued, options.queue_timeout_s)
        self._inserts = Slots(options.max_inserts, options.max_queued, options.queue_timeout_s)
        self._readers = Slots(options.reader_queries, options.max_queued, options.queue_timeout_s)
        with engine.connection() as connection:
            self._table_functions = frozenset(connection.text("SELECT lower(name) FROM system.table_functions").split())
        metrics.running.labels("read").set_function(lambda: self._reads.running)
        metrics.running.labels("insert").set_function(lambda: self._inserts.running)
        metrics.cancelled.set_function(lambda: self.watch.cancelled)

    def running(self) -> int:
        """Return how many statements run now."""
        return self._reads.running + self._inserts.running

    def run(self, request: Request, user: User, client: socket.socket, send: Send) -> None:
        """Run one request and send its answer.

        Raises:
            QueryError: the statement was refused or failed. What was sent before stays sent.
        """
        kind = request.statement.kind
        began = time.monotonic()
        slots = self._inserts if kind in ("insert", "insert_select") else self._reads
        # Readers have a share of the places, so that they cannot keep the owner out.
        share = self._readers.hold() if user.reader else nullcontext()
        self._metrics.queries.labels(kind).inc()
        try:
            with (
                share,
                slots.hold(),
                self._connected(request, user) as connection,
                self.watch.over(connection.tag, client),
            ):
                self._execute(connection, request, send, self._options.reader_result_rows if user.reader else None)
        finally:
            self._metrics.seconds.labels(kind).observe(time.monotonic() - began)

    def _execute(self, connection: Connection, request: Request, send: Send, bound: int | None) -> None:
        statement = request.statement
        if statement.kind == "insert":
            send((), self._insert(connection, request))
            return
        text = statement.text.decode("utf-8", "surrogateescape")
        stats = Stats()
        if statement.kind == "select" and self._streams(request):
            with closing(connection.stream(text, request.output, request.params, stats)) as rows:
                chunks = rows if bound is None else _bounded(rows, stats, bound)
                send(self._revise(request, chunks), stats)
            self._metrics.read_rows.inc(stats.read_rows)
            return
        result = connection.execute(text, request.output, request.params)
        if bound is not None and result.rows_read() > bound:
            raise _too_many(bound)
        stats = Stats(
            read_rows=result.storage_rows_read(), read_bytes=result.storage_bytes_read(),
            result_rows=result.rows_read(), written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
        )  # fmt: skip
        self._metrics.read_rows.inc(stats.read_rows)
        if statement.kind == "insert_select":
            self._metrics.insert_rows.inc(stats.written_rows)
        data = result.bytes()
        send(self._revise(request, iter([data] if data else [])), stats)

    @staticmethod
    def _revise(request: Request, chunks: Iterator[Any]) -> Iterator[Any]:
        version = request.parameters.get("client_protocol_version", "0")
        if request.output.lower() == "native" and version.isdigit() and int(version) > 0:
            return revised(chunks, int(version))
        return chunks

    @staticmethod
    def _streams(request: Request) -> bool:
        return (
            request.output.lower() in STREAMED
            and not request.statement.totals
            and request.settings.get("extremes", "0") in ("0", "false")
        )

    def _insert(self, connection: Connection, request: Request) -> Stats:
        # The engine takes no parameters with a streamed INSERT; as settings of this connection they do the same.
        connection.set({f"param_{name}": value for name, value in request.params.items()})
        received = 0

        def counted() -> Iterator[bytes]:
            nonlocal received
            for chunk in request.body:
                received += len(chunk)
                yield chunk

        text = request.statement.text.decode("utf-8", "surrogateescape")
        try:
            stats = connection.insert(text, request.statement.format, counted())
        finally:
            self._metrics.insert_bytes.inc(received)
        self._metrics.insert_rows.inc(stats.written_rows)
        stats.read_rows, stats.read_bytes = stats.written_rows, received
        return stats

    @contextmanager
    def _connected(self, request: Request, user: User) -> Iterator[Connection]:
        name = request.parameters.get("session_id", "")
        if not name:
            with self._engine.connection() as connection:
                self._prepare(connection, request, user)
                yield connection
            return
        session = self.sessions.acquire(
            user.name, name, request.parameters.get("session_timeout", ""), check=request.flag("session_check")
        )
        try:
            yield from self._in_session(session, request, user)
        finally:
            self.sessions.release(session)

    def _in_session(self, session: Session, request: Request, user: User) -> Iterator[Connection]:
        if session.connection is None and not request.statement.stateful:
            with self._engine.connection() as connection:
                self._prepare(connection, request, user)
                yield connection
            return
        if request.readonly or user.reader:
            # Read-only cannot be lifted again from a connection.
            raise QueryError.of(164, "READONLY", "A session that holds state cannot be used read-only; use POST")
        if session.connection is None:
            session.connection = self._engine.connect()
        connection = session.connection
        # What a SET changes is there to stay.
        before = remember(connection, () if request.statement.kind == "set" else request.settings)
        try:
            self._prepare(connection, request, user)
            yield connection
        finally:
            try:
                if request.statement.stateful and request.statement.kind != "set":
                    before = (current_database(connection), *before[1:])
                restore(connection, before)
            except QueryError:
                session.connection = None
                connection.close()

    def _prepare(self, connection: Connection, request: Request, user: User) -> None:
        """Apply the request's database, settings and rights to its connection."""
        if user.reader:
            reader.check_settings(request)
        if request.database:
            connection.use(request.database)
        settings = dict(request.settings)
        if user.reader:
            for name, limit in _CAPPED.items():
                settings[name] = _capped(settings.get(name, ""), getattr(self._options, limit))
            settings["readonly"] = "1"
        elif request.readonly and settings.get("readonly") != "1":
            settings["readonly"] = "2"
        # Nothing can be set after it.
        readonly = settings.pop("readonly", None)
        connection.set(settings)
        if readonly is not None:
            connection.set({"readonly": readonly})
        if user.reader:
            reader.check_statement(connection, request, self._table_functions, self._options.reader_query_bytes)


def _bounded(chunks: Iterator[Any], stats: Stats, bound: int) -> Iterator[Any]:
    """Pass an answer on up to ``bound`` rows; the engine's own limit holds for each part of a UNION, not for all."""
    for chunk in chunks:
        if stats.result_rows > bound:
            raise _too_many(bound)
        yield chunk


def _too_many(bound: int) -> QueryError:
    return QueryError.of(396, "TOO_MANY_ROWS_OR_BYTES", f"Limit for result exceeded, max rows: {bound}")


def _capped(asked: str, limit: float) -> str:
    try:
        value = float(asked)
    except ValueError:
        value = 0.0
    return f"{min(value, limit) if value > 0 else limit:.17g}"
