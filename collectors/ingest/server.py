"""The listener and what its connections share: bounds, the way to Kafka, counters."""

from __future__ import annotations

import ssl
import threading

from collectors.ingest.body import Budget
from collectors.ingest.handler import Handler
from collectors.ingest.intake import Intake
from collectors.ingest.metrics import Metrics
from collectors.ingest.outlet import Outlet
from collectors.ingest.settings import IngestSettings
from collectors.ingest.upload import Series
from runtime.listener import Listener
from streams.schema.errors import BrokerUnavailableError


class Server(Listener):
    """Listens for profiles.

    Raises:
        SettingsError: the address cannot be bound.
    """

    TOO_MANY = (
        b"429 Too Many Requests\r\nContent-Type: application/json\r\n",
        b'{"code":"resource_exhausted","message":"too many connections; come again"}\n',
    )

    def __init__(
        self, settings: IngestSettings, outlet: Outlet, metrics: Metrics, tls: ssl.SSLContext | None = None
    ) -> None:
        self.options = options = settings.ingest
        self.outlet, self.metrics = outlet, metrics
        self.intake = Intake(settings, metrics)
        self.budget = Budget(options.max_inflight_bytes)
        self.decoding = threading.BoundedSemaphore(options.max_decoding)
        super().__init__((options.host, options.port), Handler, options.max_connections, tls)
        metrics.connections.set_function(lambda: self.connections)
        metrics.inflight.set_function(lambda: self.budget.held)

    def turned_away(self) -> None:
        """Count a connection beyond the bound."""
        self.metrics.refused.labels("connections").inc()

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
