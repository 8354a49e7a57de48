"""``/metrics`` (Prometheus text) and ``/healthz`` (JSON; 200 when every check is well, else 503) of a process."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics, make_wsgi_app

from runtime.settings import HttpSettings
from streams.schema.errors import SettingsError

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Health:
    """Named checks, each well or not with a reason. Thread-safe. A process without checks is well."""

    def __init__(self) -> None:
        self._checks: dict[str, str] = {}
        self._asked: dict[str, Callable[[], str]] = {}
        self._lock = threading.Lock()

    def well(self, check: str) -> None:
        """Record that a check is well."""
        with self._lock:
            self._checks[check] = ""

    def ill(self, check: str, reason: str) -> None:
        """Record that a check fails, and why, in words for a person."""
        with self._lock:
            self._checks[check] = reason or "unwell"

    def ask(self, check: str, reason: Callable[[], str]) -> None:
        """Have a check answered at each look: ``reason`` returns "" or why not; from any thread, at once."""
        with self._lock:
            self._asked[check] = reason

    def state(self) -> tuple[bool, dict[str, str]]:
        """Return (all well, {check: "" or reason})."""
        with self._lock:
            checks, asked = dict(self._checks), dict(self._asked)
        checks |= {check: reason() for check, reason in asked.items()}
        return not any(checks.values()), checks


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: every probe of a monitor would be a line."""


def serve(settings: HttpSettings, health: Health, registry: CollectorRegistry = REGISTRY) -> int:
    """Serve both paths from a daemon thread; returns the port.

    Raises:
        SettingsError: the address cannot be bound.
    """
    # A time for each counter that nobody reads would be a third of what is served.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        if path == "/healthz":
            fine, checks = health.state()
            body = json.dumps({"ok": fine, "checks": checks}).encode() + b"\n"
            status = "200 OK" if fine else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"try /metrics or /healthz\n"]

    try:
        server = make_server(settings.host, settings.port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise SettingsError(
            f"cannot serve metrics on {settings.host}:{settings.port}: {error.strerror}; choose another port"
        ) from error
    # The interval is for ``shutdown``, which nobody calls: a connection wakes it at once.
    threading.Thread(target=server.serve_forever, args=(3600.0,), name="observe", daemon=True).start()
    return int(server.server_port)
