"""A listener of HTTP connections, a thread for each: bounded in number, TLS in the connection's own thread."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from streams.schema.errors import SettingsError

_LOG = logging.getLogger(__name__)
_HANDSHAKE_S = 10.0
_CHUNK = 1 << 20


def tls_context(section: str, cert_file: str, key_file: str) -> ssl.SSLContext | None:
    """Return the server's side of TLS (1.2 and newer), or None when no certificate is set. Both files are read now.

    Raises:
        SettingsError: a file cannot be read, is no PEM, or the key is another certificate's or encrypted; the settings
            are named as those of ``section``.
    """
    if not cert_file:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password OpenSSL does not ask on the terminal for that of an encrypted key.
        made.load_cert_chain(cert_file, key_file or None, password="")
    except OSError as error:
        reason = (error.reason or "no PEM, or encrypted") if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            f"{section}.cert_file {cert_file} with {section}.key_file {key_file or '(the same file)'} "
            f"cannot be used: {reason}"
        ) from error
    return made


class Listener(ThreadingTCPServer):
    """Listens; one daemon thread for each connection, at most ``max_connections`` of them.

    ``TOO_MANY`` is (status line and headers of its own, body) of the answer to a connection beyond that.

    Raises:
        SettingsError: the address cannot be bound.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256
    TOO_MANY: tuple[bytes, bytes]

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        max_connections: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tls = tls
        self._places = threading.BoundedSemaphore(max_connections)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        host, port = address
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, handler)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"cannot listen on {host}:{port}: {getattr(error, 'strerror', error)}; choose another --port"
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return len(self._open)

    def turned_away(self) -> None:
        """Take notice of a connection beyond the bound."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; with TLS its own thread does the handshake, which may take as long as it likes."""
        client, address = super().get_request()
        if self._tls is not None:
            client = self._tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class's types
        """Start a thread for a new connection, or turn it away when there are too many."""
        if not self._places.acquire(blocking=False):
            self.turned_away()
            head, body = self.TOO_MANY
            # Saying so over TLS would take a handshake in the thread that accepts.
            with suppress(OSError):
                self._tls or request.sendall(
                    b"HTTP/1.1 %bRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                    % (head, len(body), body)
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

    def close_listener(self) -> None:
        """Stop listening; connections go on, where the base class's close would wait for their threads."""
        self.socket.close()

    def hang_up(self) -> None:
        """Close every client connection; for stopping."""
        with self._open_lock:
            for client in self._open:
                with suppress(OSError):
                    # Not TLS's own shutdown, which would take the connection apart under its thread's hands.
                    socket.socket.shutdown(client, socket.SHUT_RDWR)


class Connection(BaseHTTPRequestHandler):
    """Serves one client connection of a ``Listener``; keep-alive."""

    protocol_version = "HTTP/1.1"
    sys_version = ""
    disable_nagle_algorithm = True
    rbufsize = 1 << 16
    wbufsize = 1 << 16
    most_drained = 8 << 20
    """Of a body that nobody wanted, in bytes."""
    _unread = False

    def setup(self) -> None:
        """Begin a connection, with TLS by its handshake."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(_HANDSHAKE_S)
            self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: a URL may hold anything, credentials too."""

    def _drain(self) -> None:
        """Read some of a body that nobody wanted, so that the client sees the answer; then hang up."""
        self.close_connection = True
        with suppress(OSError, ValueError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(2.0)
            left = self.most_drained
            while left > 0 and (data := self.rfile.read1(_CHUNK)):
                left -= len(data)
