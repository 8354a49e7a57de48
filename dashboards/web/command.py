"""``perfstream profile web``."""

from __future__ import annotations

import threading
import webbrowser
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from dashboards.store import connect
from runtime.stopping import until_asked
from streams.schema.errors import SettingsError

_HOST = "127.0.0.1"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Handler(WSGIRequestHandler):
    timeout = 30

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the page says what went wrong."""


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4050, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--open/--no-open", "browser", default=False, help="Open it in the browser.")
@click.option("--dsn", default="", help="ClickHouse, e.g. http://HOST:8123/perfstream [the local stack's].")
def web(port: int, browser: bool, dsn: str) -> None:
    """Explore profiles in the browser: flame graph, top table, search, sandwich view, comparison.

    Serves on loopback until Ctrl-C. The selection stands in the page's address, so that it can be kept and sent.
    """
    from dashboards.web.server import App

    app = App(connect(dsn))
    try:
        server = make_server(_HOST, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise SettingsError(f"cannot listen on {_HOST}:{port}: {error.strerror}; choose another --port") from error
    address = f"http://{_HOST}:{server.server_port}/"
    click.echo(f"profiles: {address}   Ctrl-C ends it")
    stop = until_asked()
    threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True).start()
    if browser:
        webbrowser.open(address)
    stop.wait()
    server.shutdown()
    server.server_close()
