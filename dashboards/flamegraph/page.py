"""Puts a flame graph, the viewer's script and its style into one HTML file that needs no network."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dashboards.reading import Flamegraph


def render(graph: Flamegraph, title: str, subtitle: str = "") -> str:
    """Return the page. Names from profiles are data in it, never markup: they may hold anything.

    Cost: about 12 bytes a node beside the distinct names.
    """
    names: dict[str, int] = {}
    label = [names.setdefault(name, len(names)) for name in graph.label]
    data = {
        "unit": graph.unit,
        "names": list(names),
        "level": graph.level,
        "value": graph.value,
        "self": graph.self,
        "label": label,
    }
    # JSON inside <script> ends at "</script" or changes meaning at "<!--", so no "<" stands in it as itself.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
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
