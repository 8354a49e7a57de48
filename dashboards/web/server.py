"""The page's server: three questions to the store, and files. Loopback only, reads only.

``/`` and ``/static/`` are files of this package. ``/api/choices``, ``/api/flamegraph`` and ``/flamegraph.html`` take
what a command takes: ``matcher``, ``type``, ``since`` or ``from`` and ``to``; with ``compare`` also ``matcher2``,
``since2`` and so on for the other side. Errors are ``{"error": "..."}``: 400 for what was asked wrongly, 503 without a
store.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from dashboards import queries, reading, selection, show
from dashboards.flamegraph import page
from dashboards.flamegraph.difference import difference
from dashboards.reading import Flamegraph
from dashboards.selection import Selection
from dashboards.store import Store
from streams.schema.errors import PerfstreamError, StoreUnavailableError, UsageError

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
_FILES = {"/": "index.html", "/static/viewer.js": "viewer.js", "/static/page.css": "page.css"}
_KINDS = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_JSON = "application/json"
# Grafana's viewer writes its styles itself; nothing comes from elsewhere, nobody may frame it.
_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_SAFE = [
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?\Z")
_MOST_QUERY, _MOST_SERVICES = 16 * 1024, 5000


class App:
    """The WSGI application over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        folder = files("dashboards.web") / "static"
        self._files = {path: (folder / name).read_bytes() for path, name in _FILES.items()}
        self._answers: dict[str, Callable[[Mapping[str, str]], tuple[str, bytes]]] = {
            "/api/choices": self._choices,
            "/api/flamegraph": self._flamegraph,
            "/flamegraph.html": self._file,
        }

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            status, kind, body = self._answer(environ)
        except UsageError as error:
            status, kind, body = "400 Bad Request", _JSON, _error(error)
        except StoreUnavailableError as error:
            status, kind, body = "503 Service Unavailable", _JSON, _error(error)
        except PerfstreamError as error:
            status, kind, body = "502 Bad Gateway", _JSON, _error(error)
        except Exception as error:
            log.exception("a request failed", extra={"path": environ.get("PATH_INFO")})
            status, kind, body = "500 Internal Server Error", _JSON, _error(error)
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *_SAFE])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, str, bytes]:
        # A page elsewhere whose name was pointed at this address must not read what stands here.
        if not _LOCAL.match(environ.get("HTTP_HOST", "")):
            return "403 Forbidden", _JSON, _error("this page is for this machine only; open it as 127.0.0.1")
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", _JSON, _error("only GET is known here")
        if path in self._files:
            return "200 OK", _KINDS[_FILES[path].rpartition(".")[2]], self._files[path]
        if path not in self._answers:
            return "404 Not Found", _JSON, _error("there is no such page")
        query = environ.get("QUERY_STRING", "")
        if len(query) > _MOST_QUERY:
            raise UsageError(f"the query is longer than {_MOST_QUERY} characters")
        kind, body = self._answers[path](dict(parse_qsl(query)))
        return "200 OK", kind, body

    def _choices(self, given: Mapping[str, str]) -> tuple[str, bytes]:
        """Services with their versions, and types, in the time of the first side."""
        wanted = _side({**given, "matcher": ""}, "")
        services = self._store.rows(*queries.SERVICES.bound(wanted, n=_MOST_SERVICES))
        found = {
            "services": [{"service": row["service"], "versions": sorted(row["versions"])} for row in services],
            "types": sorted({kind for row in services for kind in row["types"]}),
        }
        return _JSON, json.dumps(found).encode()

    def _graph(self, given: Mapping[str, str]) -> tuple[Flamegraph, str, str]:
        """Return (graph, what it is of, how much it is)."""
        sides = [_side(given, end) for end in (("", "2") if "compare" in given else ("",))]
        graphs = [reading.flamegraph(self._store, side) for side in sides]
        for side, graph in zip(sides, graphs, strict=True):
            if not graph.total:
                raise UsageError(f"nothing recorded for {side}; {reading.what_exists(self._store, side)}")
        amounts = " against ".join(show.human(graph.total, graph.unit) for graph in graphs)
        graph = graphs[0] if len(graphs) == 1 else difference(*graphs)
        return graph, " against ".join(map(str, sides)), amounts

    def _flamegraph(self, given: Mapping[str, str]) -> tuple[str, bytes]:
        graph, _, amounts = self._graph(given)
        about = f"{amounts}, {len(graph.level)} nodes, read {datetime.now(UTC):%H:%M:%S} UTC"
        found = page.data(graph) | {"about": about}
        return _JSON, json.dumps(found, separators=(",", ":")).encode("utf-8", "replace")

    def _file(self, given: Mapping[str, str]) -> tuple[str, bytes]:
        graph, what, amounts = self._graph(given)
        return _KINDS["html"], page.render(graph, f"perfstream · {amounts}", what).encode()


def _side(given: Mapping[str, str], end: str) -> Selection:
    return selection.make(
        given.get(f"matcher{end}", ""),
        type=given.get("type", "cpu"),
        since=given.get(f"since{end}", ""),
        start=given.get(f"from{end}", ""),
        end=given.get(f"to{end}", ""),
    )


def _error(what: object) -> bytes:
    return json.dumps({"error": str(what)}).encode()
