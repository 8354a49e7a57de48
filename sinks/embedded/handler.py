"""One client connection: requests in, answers out; keep-alive, chunked bodies both ways."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runtime.listener import Connection
from runtime.log import Once
from sinks.embedded.access import authenticate
from sinks.embedded.compression import Encoder, choose, decoded, framed, unframed
from sinks.embedded.engine import Stats
from sinks.embedded.errors import QueryError
from sinks.embedded.request import Request, parameters_of, read

if TYPE_CHECKING:
    from sinks.embedded.server import Server

_LOG = logging.getLogger(__name__)
_ONCE = Once(_LOG)
_CHUNK = 1 << 20
_HELD = 1 << 20
_IDLE_S = 60.0
_STALL_S = 300.0
_PLAIN = "text/plain; charset=UTF-8"
_TYPES = {
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "jsonlines": "application/x-ndjson; charset=UTF-8",
    "ndjson": "application/x-ndjson; charset=UTF-8",
    "json": "application/json; charset=UTF-8",
    "native": "application/octet-stream",
    "rowbinary": "application/octet-stream",
    "arrow": "application/octet-stream",
    "parquet": "application/octet-stream",
}
"""Content types by the beginning of a format's name, the first that fits."""


class Handler(Connection):
    """Serves one client connection."""

    server: Server
    server_version = "perfstream-store"
    timeout = _IDLE_S
    most_drained = 32 << 20

    _began = False
    _query_id = ""
    _started_ns = 0
    _end = b""

    def do_GET(self) -> None:  # noqa: N802 - the base class names it so
        """Answer a GET: the fixed pages, or a read-only query."""
        self._route()

    def do_POST(self) -> None:  # noqa: N802 - the base class names it so
        """Answer a POST: a query."""
        self._route()

    def do_HEAD(self) -> None:  # noqa: N802 - the base class names it so
        """Answer a HEAD with the headers alone."""
        self._simple(200, b"")

    def _route(self) -> None:
        self._began = False
        self._query_id = ""
        self._end = b""
        self._started_ns = time.monotonic_ns()
        self._unread = self._has_chunks() or self.headers.get("Content-Length", "0") != "0"
        try:
            path, parameters = parameters_of(self.path)
            if path in ("/ping", "/replicas_status") or (
                path == "/" and self.command == "GET" and "query" not in parameters
            ):
                self._simple(200, b"Ok.\n")
            elif path != "/":
                self._simple(
                    404, b"There is no handle " + path[:200].encode() + b"\n\nUse / or /ping for health checks.\n"
                )
            else:
                self._query(parameters)
        except QueryError as error:
            self._fail(error)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - one request must not end the process
            _LOG.exception("request failed")
            self._fail(QueryError.of(1001, "STD_EXCEPTION", f"Internal error: {type(error).__name__}"))
        if self._unread:
            self._drain()

    def _query(self, parameters: dict[str, str]) -> None:
        shared = self.server
        user = authenticate(shared.options, self.headers, parameters)  # type: ignore[arg-type]
        # It goes into a header: nothing but ASCII may stand there.
        self._query_id = "".join(c for c in parameters.get("query_id", "")[:256] if " " <= c <= "~") or str(
            uuid.uuid4()
        )
        # A stalled client holds a slot: it gets minutes, not for ever.
        self.connection.settimeout(_STALL_S)
        try:
            body = decoded(self.headers.get("Content-Encoding", ""), self._body(), shared.options.max_body_bytes)
            if parameters.get("decompress", "").lower() in ("1", "true"):
                body = unframed(body)
            request = read(shared.options, self.command, parameters, self.headers, body)  # type: ignore[arg-type]
            shared.service.run(request, user, self.connection, lambda chunks, stats: self._send(request, chunks, stats))
            # The last byte leaves when slot and session are free again: the client's next request finds them so.
            self.wfile.write(self._end)
            self.wfile.flush()
        finally:
            self.connection.settimeout(_IDLE_S)

    def _body(self) -> Iterator[bytes]:
        """Yield the raw body in chunks; a body that ends early is an error, so that no part of it is committed."""
        if self._has_chunks():
            yield from self._chunked()
        else:
            length = self.headers.get("Content-Length") or "0"
            if not length.isascii() or not length.isdigit():
                raise QueryError.of(36, "BAD_ARGUMENTS", "Content-Length is not a number")
            left = int(length)
            while left > 0:
                data = self.rfile.read(min(left, _CHUNK))
                if not data:
                    raise ConnectionResetError
                left -= len(data)
                yield data
        self._unread = False

    def _has_chunks(self) -> bool:
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def _chunked(self) -> Iterator[bytes]:
        while True:
            line = self.rfile.readline(256)
            try:
                left = int(line.split(b";", 1)[0], 16)
            except ValueError:
                raise ConnectionResetError from None
            if left < 0:
                raise ConnectionResetError
            if left == 0:
                while self.rfile.readline(8192) not in (b"\r\n", b"\n", b""):
                    pass
                return
            while left:
                data = self.rfile.read(min(left, _CHUNK))
                if not data:
                    raise ConnectionResetError
                left -= len(data)
                yield data
            self.rfile.readline(8)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _simple(self, status: int, body: bytes) -> None:
        self._began = True
        self.send_response(status)
        self.send_header("Content-Type", _PLAIN)
        self.send_header("Content-Length", str(len(body)))
        if self._unread:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _fail(self, error: QueryError) -> None:
        """Answer with an error, or, when the answer has begun, write it where the client looks for it and hang up."""
        self.server.metrics.errors.labels(str(error.code)).inc()
        _ONCE.warning(f"code {error.code}", "a statement failed", code=error.code, query_id=self._query_id)
        text = str(error)
        if "(version " not in text:
            text += f" (version {self.server.engine.version})"
        body = text.encode("utf-8", "replace") + b"\n"
        with suppress(OSError):
            if self._began:
                tag = self._tag.encode()
                note = b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag, body, len(body), tag)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(note), note))
                self.wfile.flush()
                self.close_connection = True
                return
            self._began = True
            self.send_response(error.status)
            self._common()
            self.send_header("Content-Type", _PLAIN)
            self.send_header("X-ClickHouse-Exception-Code", str(error.code))
            if error.status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="ClickHouse server HTTP API"')
            if error.code == 202:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(body)))
            if self._unread:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    def _common(self) -> None:
        engine = self.server.engine
        if self._query_id:
            self.send_header("X-ClickHouse-Query-Id", self._query_id)
        self.send_header("X-ClickHouse-Server-Display-Name", engine.name)
        self.send_header("X-ClickHouse-Timezone", engine.timezone)

    def _send(self, request: Request, chunks: Any, stats: Stats) -> None:  # noqa: ANN401 - any iterable of buffers
        """Send an answer except for its end."""
        encoding = ""
        if request.flag("compress"):
            method = request.parameters.get("network_compression_method", "LZ4").upper()
            chunks = framed(chunks, method, _integer(request.parameters.get("network_zstd_compression_level"), 1))
        elif request.flag("enable_http_compression"):
            encoding = choose(self.headers.get("Accept-Encoding", ""))
            if encoding:
                level = _integer(request.parameters.get("http_zlib_compression_level"), 3)
                chunks = Encoder(encoding, level).parts(chunks)
        held: list[Any] = []
        size = 0
        bound = self.server.options.max_buffered_result_bytes if request.flag("wait_end_of_query") else _HELD
        source = iter(chunks)
        for chunk in source:
            held.append(chunk)
            size += len(chunk)
            if size > bound:
                break
        else:
            source = None
        self._head(request, encoding, stats, None if source else size)
        if source is None:
            whole = [memoryview(chunk) for chunk in held if len(chunk)]
            for chunk in whole[:-1]:
                self.wfile.write(chunk)
            if whole:
                self.wfile.write(whole[-1][:-1])
                self._end = bytes(whole[-1][-1:])
            return
        self._end = b"0\r\n\r\n"
        for chunk in held:
            self._write_chunk(chunk)
        held.clear()
        for chunk in source:
            self._write_chunk(chunk)

    def _write_chunk(self, data: Any) -> None:  # noqa: ANN401
        if len(data):
            self.wfile.write(b"%x\r\n" % len(data))
            self.wfile.write(data)
            self.wfile.write(b"\r\n")

    def _head(self, request: Request, encoding: str, stats: Stats, size: int | None) -> None:
        self._began = True
        self._tag = uuid.uuid4().hex[:16]
        name = request.output
        self.send_response(200)
        self._common()
        known = next((kind for prefix, kind in _TYPES.items() if name.lower().startswith(prefix)), _PLAIN)
        self.send_header("Content-Type", known)
        self.send_header("X-ClickHouse-Format", name)
        self.send_header("X-ClickHouse-Exception-Tag", self._tag)
        summary = {
            "read_rows": stats.read_rows, "read_bytes": stats.read_bytes, "written_rows": stats.written_rows,
            "written_bytes": stats.written_bytes, "total_rows_to_read": stats.read_rows,
            "result_rows": stats.result_rows or stats.written_rows, "result_bytes": size or 0,
            "elapsed_ns": time.monotonic_ns() - self._started_ns,
        }  # fmt: skip
        text = json.dumps({key: str(value) for key, value in summary.items()}, separators=(",", ":"))
        self.send_header("X-ClickHouse-Summary", text)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        if size is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(size))
        if self._unread:
            self.send_header("Connection", "close")
        self.end_headers()


def _integer(text: str | None, default: int) -> int:
    try:
        return int(text) if text else default
    except ValueError:
        return default
