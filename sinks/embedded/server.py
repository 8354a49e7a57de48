"""The HTTP side: listens, and gives each client connection a thread.

Threads, because every statement blocks in the engine (which gives up the interpreter's lock), and because a body then
goes from the socket to the engine without a hop between tasks.
"""

from __future__ import annotations

import ssl

from runtime.listener import Listener
from sinks.embedded.engine import Engine
from sinks.embedded.handler import Handler
from sinks.embedded.metrics import Metrics
from sinks.embedded.service import Service
from sinks.embedded.settings import Options


class Server(Listener):
    """Listens for statements.

    Raises:
        SettingsError: the address cannot be bound.
    """

    TOO_MANY = (
        b"503 Service Unavailable\r\nX-ClickHouse-Exception-Code: 202\r\n",
        b"Code: 202. DB::Exception: Too many connections. (TOO_MANY_SIMULTANEOUS_QUERIES)\n",
    )

    def __init__(self, engine: Engine, options: Options, metrics: Metrics, tls: ssl.SSLContext | None = None) -> None:
        self.engine = engine
        self.options = options
        self.metrics = metrics
        self.service = Service(engine, options, metrics)
        super().__init__((options.host, options.port), Handler, options.max_connections, tls)
        metrics.connections.set_function(lambda: self.connections)

    def busy(self) -> bool:
        """Return whether a statement is running or a connection is being served."""
        return self.service.running() > 0
