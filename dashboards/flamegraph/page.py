"""Puts a flame graph, the viewer's script and its style into one HTML file that needs no network."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from streams.schema.errors import PerfstreamError

if TYPE_CHECKING:
    from dashboards.reading import Flamegraph


def write(path: Path, graph: Flamegraph, title: str, subtitle: str = "") -> int:
    """Write the page to a file, with the folders that it needs; returns its bytes.

    Raises:
        PerfstreamError: it cannot be written.
    """
    text = render(graph, title, subtitle).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    except OSError as error:
        raise PerfstreamError(f"cannot write {path}: {error.strerror}; choose another file with -o") from error
    return len(text)


def data(graph: Flamegraph) -> dict[str, object]:
    """Return what a page draws, for JSON: the graph's columns, each distinct name once and ``label`` by its number."""
    names: dict[str, int] = {}
    label = [names.setdefault(name, len(names)) for name in graph.label]
    found: dict[str, object] = {
        "unit": graph.unit,
        "names": list(names),
        "level": graph.level,
        "value": graph.value,
        "self": graph.self,
        "label": label,
    }
    if graph.before:
        found |= {"before": graph.before, "after": graph.after}
    return found


def render(graph: Flamegraph, title: str, subtitle: str = "") -> str:
    """Return the page. Names from profiles are data in it, never markup: they may hold anything.

    Cost: about 12 bytes a node beside the distinct names.
    """
    # JSON inside <script> ends at "</script" or changes meaning at "<!--", so no "<" stands in it as itself.
    text = json.dumps(data(graph), separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    text = text.encode("utf-8", "replace").decode()
    folder = files("dashboards.flamegraph")
    parts = {
        "@title@": html.escape(title),
        "@subtitle@": html.escape(subtitle),
        "@style@": (folder / "viewer.css").read_text(encoding="utf-8"),
        "@script@": (folder / "viewer.js").read_text(encoding="utf-8"),
        "@data@": text,
    }
    # One split instead of repeated replacement: a title or a name that looks like a mark stays what it is.
    template = (folder / "page.html").read_text(encoding="utf-8")
    pieces = template.split("%%")
    return "".join(parts.get(piece, piece) for piece in pieces)
