"""The listener: a thread for each connection, so that a slow client delays nobody; bounded in all of them together."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import suppress
from socketserver import ThreadingTCPServer
from typing import Any

from collectors.ingest.body import Budget
from collectors.ingest.handler import Handler
from collectors.ingest.intake import Intake
from collectors.ingest.metrics import Metrics
from collectors.ingest.outlet import Outlet
from collectors.ingest.settings import IngestSettings
from collectors.ingest.upload import Series
from streams.schema.errors import BrokerUnavailableError, SettingsError

_LOG = logging.getLogger(__name__)


class Server(ThreadingTCPServer):
    """Listens; one daemon thread for each connection, at most ``max_connections`` of them.

    Raises:
        SettingsError: the address cannot be bound.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, settings: IngestSettings, outlet: Outlet, metrics: Metrics, tls: ssl.SSLContext | None = None
    ) -> None:
        self.options = options = settings.ingest
        self.outlet, self.metrics = outlet, metrics
        self.intake = Intake(settings, metrics)
        self.budget = Budget(options.max_inflight_bytes)
        self.decoding = threading.BoundedSemaphore(options.max_decoding)
        self._tls = tls
        self._places = threading.BoundedSemaphore(options.max_connections)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        metrics.connections.set_function(lambda: len(self._open))
        metrics.inflight.set_function(lambda: self.budget.held)
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
            self.metrics.refused.labels("connections").inc()
            body = b'{"code":"resource_exhausted","message":"too many connections; come again"}\n'
            # Saying so over TLS would take a handshake in the thread that accepts.
            with suppress(OSError):
                self._tls or request.sendall(
                    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
                    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                )
            self.shutdown_request(request)
            return
        with self._lock:
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
        with self._lock:
            self._open.discard(request)
        self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Clients that hang up in the middle of something are no error of ours."""
        _LOG.debug("a connection ended early", exc_info=True)

    def publish(self, series: list[Series], peer: str, too_late: int = 400) -> None:
        """Return when Kafka has acknowledged a request's series; for every protocol. Thread-safe.

        Args:
            series: what its decoder returned.
            peer: the client's address.
            too_late: the status of a profile whose time is outside of the window.

        Raises:
            RefusedError: one of the series cannot be published; then none is.
            BrokerUnavailableError: Kafka has not acknowledged in time.
        """
        with self.decoding:
            taken = self.intake.take(series, peer, too_late)
        try:
            if taken.pieces:
                self.outlet.publish(taken.pieces, self.options.ack_timeout_s)
        except BrokerUnavailableError:
            self.intake.put_back(taken)
            raise
        self.metrics.profiles.inc(len(series))
        self.metrics.rows.inc(sum(piece.rows for piece in taken.pieces))

    def busy(self) -> bool:
        """Return whether a profile is on its way."""
        return self.budget.held > 0

    def hang_up(self) -> None:
        """Stop listening and close every client connection; for stopping."""
        self.socket.close()
        with self._lock:
            for client in self._open:
                with suppress(OSError):
                    # Not TLS's own shutdown, which would take the connection apart under its thread's hands.
                    socket.socket.shutdown(client, socket.SHUT_RDWR)
