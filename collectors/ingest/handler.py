"""One client connection: requests in, answers out; keep-alive, chunked bodies."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from collectors.ingest import access
from collectors.ingest import body as bodies
from collectors.ingest.errors import RefusedError
from collectors.ingest.routes import ROUTES, Request, Route
from runtime.listener import Connection
from runtime.log import Once
from streams.schema.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from collectors.ingest.server import Server

_LOG = logging.getLogger(__name__)
_ONCE = Once(_LOG, every_s=60.0)
_IDLE_S = 120.0
_STALL_S = 30.0
_RETRY_AFTER_S = 5


class Handler(Connection):
    """Serves one client connection."""

    server: Server
    server_version = "perfstream-ingest"
    timeout = _IDLE_S

    def handle_expect_100(self) -> bool:
        """Invite a body only when the request's head has been looked at."""
        return True

    def do_GET(self) -> None:  # noqa: N802 - the base class names it so
        """Answer probes of clients and load balancers."""
        path = urlsplit(self.path).path
        well = path in ("/ready", "/ping", "/")
        self._answer(200 if well else 404, "text/plain", b"ready\n" if well else b"POST /ingest\n")

    def do_HEAD(self) -> None:  # noqa: N802 - the base class names it so
        """Answer like GET, without a body."""
        self.do_GET()

    def do_POST(self) -> None:  # noqa: N802 - the base class names it so
        """Take in profiles."""
        self._unread = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        path, route = "", None
        try:
            path, parameters = _target(self.path)
            route = ROUTES.get(path)
            if route is None:
                raise RefusedError(404, "path", f"no such path; there are {', '.join(ROUTES)}")
            content_type, answer = self._take(route, parameters)
            self.server.metrics.requests.labels(path, "200").inc()
            self._answer(200, content_type, answer)
        except RefusedError as error:
            self._refuse(path if route else "other", error, route)
        except BrokerUnavailableError as error:
            unavailable = RefusedError(503, "kafka", f"not stored, send it again: {error}", _RETRY_AFTER_S)
            self._refuse(path, unavailable, route)
        except TimeoutError:
            self._refuse(path, RefusedError(408, "cut", "failed to read request body: it stopped"), route)
            self.close_connection, self._unread = True, False
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - one request must not end the process
            _LOG.exception("request failed")
            self._refuse(path, RefusedError(500, "internal", f"internal error: {type(error).__name__}"), route)
        if self._unread:
            self._drain()

    def _take(self, route: Route, parameters: dict[str, str]) -> tuple[str, bytes]:
        shared = self.server
        options = shared.options
        headers: Any = self.headers
        access.check(options, headers)
        route.check(Request(parameters, headers, b""))
        length = bodies.length_of(headers, options.max_body_bytes)
        with shared.budget.share() as share:
            share.take(length or 0)
            if headers.get("Expect", "").lower() == "100-continue":
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.wfile.flush()
            self.connection.settimeout(_STALL_S)
            data = bodies.read(self.rfile, length, options.max_body_bytes, share)
            self._unread = False
            began = time.monotonic()
            shared.metrics.bytes.inc(len(data))
            with shared.decoding:
                data = bodies.inflate(data, headers.get("Content-Encoding", ""), options.max_body_bytes)
                request = Request(parameters, headers, data)
                series = route.decode(request)
            shared.publish(series, str(self.client_address[0]), route.too_late)
            shared.metrics.seconds.observe(time.monotonic() - began)
            self.connection.settimeout(_IDLE_S)
            return route.answer(request)

    def _refuse(self, path: str, error: RefusedError, route: Route | None) -> None:
        status = route.statuses.get(error.status, error.status) if route else error.status
        self.server.metrics.refused.labels(error.reason).inc()
        self.server.metrics.requests.labels(path, str(status)).inc()
        _ONCE.warning(f"{path} {error.reason}", f"refused: {error}", status=status, reason=error.reason,
                      client=self.client_address[0])  # fmt: skip
        code = RefusedError(status, error.reason, "").code
        text = json.dumps({"code": code, "message": str(error)[:500]})
        with suppress(OSError):
            self._answer(status, "application/json", text.encode() + b"\n", error.retry_after_s)

    def _answer(self, status: int, content_type: str, body: bytes, retry_after_s: int = 0) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="perfstream"')
        if retry_after_s:
            self.send_header("Retry-After", str(retry_after_s))
        if self._unread:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


def _target(text: str) -> tuple[str, dict[str, str]]:
    """Return (path without a slash at its end, parameters) of a request target; of a repeated one the first counts."""
    try:
        parts = urlsplit(text)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise RefusedError(400, "bad_request", "the URL cannot be read") from None
    return "/" + parts.path.strip("/"), dict(reversed(pairs))
