"""Names of what Pyroscope's Node client sends: the function alone, as V8's perf maps give it to the sampled profile.

The client writes ``FILE:function:LINE`` in place of a function's name, with the working directory as ``.`` and the line
of whichever location came first: every edit, directory and now and then a profile would make other functions of it.
"""

from __future__ import annotations

import re

SPY = "nodespy"
_PLACED = re.compile(r"(.*?):([^:]+|\(anonymous:.*\)):\d+\Z", re.DOTALL)
_ANONYMOUS = "(anonymous)"
_LONGEST = 4 * 1024


def plain(name: str, file: str) -> tuple[str, str]:
    """Return (function, file) of a frame's name and file; what the client has not rewritten stays as it is."""
    found = _PLACED.match(name) if len(name) <= _LONGEST else None
    if found is None:
        return name, file
    place, function = found.groups()
    if not _is_place(place, file):
        return name, file
    return _ANONYMOUS if function.startswith("(anonymous") else function, file or place


def _is_place(place: str, file: str) -> bool:
    # Files may have been left out (stripFilenames) or be relative to their package in the name (shortenPaths).
    return not file or place == file or (place[:1] == "." and file.endswith(place[1:])) or file.endswith(f"/{place}")
