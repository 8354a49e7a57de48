"""The HTTP side: listens, and gives each client connection a thread.

Threads, because every statement blocks in the engine (which gives up the interpreter's lock), and because a body then
goes from the socket to the engine without a hop between tasks.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import suppress
from socketserver import ThreadingTCPServer
from typing import Any

from sinks.embedded.engine import Engine
from sinks.embedded.handler import Handler
from sinks.embedded.metrics import Metrics
from sinks.embedded.service import Service
from sinks.embedded.settings import Options
from streams.schema.errors import SettingsError

_LOG = logging.getLogger(__name__)


class Server(ThreadingTCPServer):
    """Listens; one daemon thread for each connection, at most ``max_connections`` of them."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, engine: Engine, options: Options, metrics: Metrics, tls: ssl.SSLContext | None = None) -> None:
        self.engine = engine
        self._tls = tls
        self.options = options
        self.metrics = metrics
        self.service = Service(engine, options, metrics)
        self._places = threading.BoundedSemaphore(options.max_connections)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        metrics.connections.set_function(lambda: len(self._open))
        if ":" in options.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((options.host, options.port), Handler)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"cannot listen on {options.host}:{options.port}: {getattr(error, 'strerror', error)}; "
                "choose another --port"
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; with TLS its own thread does the handshake, which may take as long as it likes."""
        client, address = super().get_request()
        if self._tls is not None:
            client = self._tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class's types
        """Start a thread for a new connection, or turn it away when there are too many."""
        if not self._places.acquire(blocking=False):
            body = b"Code: 202. DB::Exception: Too many connections. (TOO_MANY_SIMULTANEOUS_QUERIES)\n"
            # Saying so over TLS would take a handshake in the thread that accepts.
            with suppress(OSError):
                self._tls or request.sendall(
                    b"HTTP/1.1 503 Service Unavailable\r\nX-ClickHouse-Exception-Code: 202\r\nRetry-After: 1\r\n"
                    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                )
            self.shutdown_request(request)
            return
        with self._open_lock:
            self._open.add(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread to be had. The caller closes the connection.
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve one connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._open_lock:
            self._open.discard(request)
        self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Clients that hang up in the middle of something are no error of ours."""
        _LOG.debug("a connection ended early", exc_info=True)

    def hang_up(self) -> None:
        """Close every client connection; for stopping."""
        with self._open_lock:
            for client in self._open:
                with suppress(OSError):
                    # Not TLS's own shutdown, which would take the connection apart under its thread's hands.
                    socket.socket.shutdown(client, socket.SHUT_RDWR)

    def busy(self) -> bool:
        """Return whether a statement is running or a connection is being served."""
        return self.service.running() > 0

    def server_close_listener(self) -> None:
        """Stop listening; connections go on, where the base class's close would wait for their threads."""
        self.socket.close()
