"""The store as a process: start, run until a signal, stop."""

from __future__ import annotations

import logging
import os
import threading
import time

from runtime.listener import tls_context
from runtime.observe import Health, serve
from runtime.stopping import until_asked
from sinks.embedded.engine import Engine
from sinks.embedded.metrics import Checks, Metrics
from sinks.embedded.sandbox import confine
from sinks.embedded.server import Server
from sinks.embedded.settings import StoreSettings

_LOG = logging.getLogger(__name__)
_GRACE_S = 2.0
_FORCED_S = 1.5


def run(settings: StoreSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: the address cannot be used, or is reachable from elsewhere without a password.
        StoreUnavailableError: the engine cannot open the directory, for instance because another process has it open.
    """
    options = settings.store
    options.check()
    began = time.monotonic()
    # Read now: the store cannot reach the files any more when it is confined.
    tls = tls_context("store", options.cert_file, options.key_file)
    if options.plain_beyond_loopback:
        _LOG.warning("passwords and rows travel unencrypted: store.allow_plain_http is set and no certificate is")
    # Before the engine has started its threads: it holds for those that come after.
    directory = options.directory()
    (directory / "tmp").mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(directory / "tmp")
    confined = confine(directory)
    if not confined:
        _LOG.warning("this kernel cannot confine the store (Landlock, Linux 5.19): SQL reaches every file it may open")
    engine = Engine(options)
    # After the engine has started: it installs handlers of its own.
    stop = until_asked()
    metrics = Metrics()
    health = Health()
    try:
        server = Server(engine, options, metrics, tls)
        checks = Checks(engine, health, metrics, options.minimum_free_bytes, engine.path)
        checks.check()
        observe_port = serve(settings.http, health, metrics.registry)
    except BaseException:
        engine.close()
        raise
    checks.start()
    threading.Thread(target=server.serve_forever, args=(0.2,), name="accept", daemon=True).start()
    _LOG.info(
        "listening",
        extra={
            "address": f"{'https' if tls else 'http'}://{options.host}:{server.port}",
            "path": str(engine.path), "metrics_port": observe_port,
            "engine": engine.version, "confined": confined, "started_in_s": round(time.monotonic() - began, 2),
        },
    )  # fmt: skip
    while not stop.wait(1.0):
        server.service.sessions.sweep()
    _stop(server, engine, checks)


def _stop(server: Server, engine: Engine, checks: Checks) -> None:
    """Take no more requests, give the running ones a moment, end them, close the engine. Under 5 s."""
    began = time.monotonic()
    checks.stop.set()
    server.shutdown()
    server.close_listener()
    _until_idle(server, _GRACE_S)
    engine.kill_all()
    server.hang_up()
    _until_idle(server, _FORCED_S)
    server.service.sessions.close()
    checks.join(1.0)
    engine.close()
    _LOG.info("stopped", extra={"took_s": round(time.monotonic() - began, 2)})


def _until_idle(server: Server, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while server.busy() and time.monotonic() < deadline:
        time.sleep(0.02)
