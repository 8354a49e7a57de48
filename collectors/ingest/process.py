"""The push endpoint as a process: start, run until it is asked to stop, stop."""

from __future__ import annotations

import gc
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from collectors.ingest import access, pprof_reader
from collectors.ingest.metrics import Metrics
from collectors.ingest.outlet import Outlet
from collectors.ingest.server import Server
from collectors.ingest.settings import IngestOptions, IngestSettings
from runtime.listener import tls_context
from runtime.observe import Health, serve

if TYPE_CHECKING:
    from collectors.ingest import otlp_grpc

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
    tls = tls_context("ingest", options.cert_file, options.key_file)
    if options.plain_beyond_loopback:
        _LOG.warning("tokens and profiles travel unencrypted: ingest.allow_plain_http is set and no certificate is")
    metrics, health = Metrics(), Health()
    outlet = Outlet(settings.kafka, settings.topic_prefix, metrics)
    health.ask("kafka", lambda: outlet.trouble)
    server = Server(settings, outlet, metrics, tls)
    otlp = _grpc(options, server)
    port = serve(settings.http, health)
    outlet.start()
    if otlp is not None:
        otlp.start()
    threading.Thread(target=server.serve_forever, args=(0.2,), name="accept", daemon=True).start()
    scheme = "https" if tls else "http"
    address = f"{scheme}://{options.host}:{server.port}"
    grpc_port = otlp.port if otlp is not None else None
    _LOG.info("listening", extra={"address": address, "grpc_port": grpc_port, "http_port": port})
    # What lives until the end need not be looked at by every collection.
    gc.collect()
    gc.freeze()
    compiling = pprof_reader.prepare()
    stop.wait()
    if otlp is not None:
        otlp.stop(_GRACE_S)
    server.shutdown()
    deadline = time.monotonic() + _GRACE_S
    while server.busy() and time.monotonic() < deadline:
        time.sleep(0.02)
    outlet.close(1.0)
    server.close_listener()
    server.hang_up()
    # The interpreter cannot end under the compiler.
    compiling.join(_GRACE_S)
    _LOG.info("stopped")


def _grpc(options: IngestOptions, server: Server) -> otlp_grpc.Server | None:
    """Return the gRPC service on the server's way to Kafka, bound and not started; None when it is not wanted."""
    if options.grpc_port < 0:
        return None
    from collectors.ingest import otlp_grpc

    certificate = None
    if options.cert_file:
        chain = Path(options.cert_file).read_bytes()
        certificate = (Path(options.key_file).read_bytes() if options.key_file else chain, chain)
    return otlp_grpc.Server(
        server.publish,
        options.host,
        options.grpc_port,
        check=lambda headers: access.check(options, headers),
        certificate=certificate,
        max_bytes=options.max_body_bytes,
        max_waiting=max(1, options.max_inflight_bytes // options.max_body_bytes),
    )
