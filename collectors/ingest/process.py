"""The push endpoint as a process: start, run until it is asked to stop, stop."""

from __future__ import annotations

import gc
import logging
import threading
import time

from collectors.ingest.access import context
from collectors.ingest.metrics import Metrics
from collectors.ingest.outlet import Outlet
from collectors.ingest.server import Server
from collectors.ingest.settings import IngestSettings
from runtime.observe import Health, serve

_LOG = logging.getLogger("perfstream.ingest")
_GRACE_S = 3.0


def run(settings: IngestSettings, stop: threading.Event) -> None:
    """Serve until ``stop``; requests under way then get ``_GRACE_S`` seconds.

    Raises:
        SettingsError: the address cannot be used, or is reachable from elsewhere without a token.
    """
    options = settings.ingest
    options.check()
    settings.kafka.client_options()
    tls = context(options)
    if options.plain_beyond_loopback:
        _LOG.warning("tokens and profiles travel unencrypted: ingest.allow_plain_http is set and no certificate is")
    metrics, health = Metrics(), Health()
    outlet = Outlet(settings.kafka, settings.topic_prefix, metrics)
    health.ask("kafka", lambda: outlet.trouble)
    server = Server(settings, outlet, metrics, tls)
    port = serve(settings.http, health)
    outlet.start()
    threading.Thread(target=server.serve_forever, args=(0.2,), name="accept", daemon=True).start()
    scheme = "https" if tls else "http"
    _LOG.info("listening", extra={"address": f"{scheme}://{options.host}:{server.port}", "http_port": port})
    # What lives until the end need not be looked at by every collection.
    gc.collect()
    gc.freeze()
    stop.wait()
    server.shutdown()
    deadline = time.monotonic() + _GRACE_S
    while server.busy() and time.monotonic() < deadline:
        time.sleep(0.02)
    outlet.close(1.0)
    server.hang_up()
    _LOG.info("stopped")
