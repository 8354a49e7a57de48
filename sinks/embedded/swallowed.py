"""Errors of a streamed INSERT that the engine keeps to itself.

chdb raises what goes wrong while it parses the data, but not what goes wrong when it writes them (no space left, no
memory, a constraint): ``insert_done`` then returns as if all rows were stored. ``system.errors`` knows better: it
counts every error by its code and names the query of the last one. So the counts are looked at before and after.

Where another statement had the same error in between and its name stands there, the two cannot be told apart. For
errors of the store itself the INSERT then counts as failed: repeating one that did land is safe with its token, and
without one it is still better than rows that are gone. Cost: two small queries, about 1 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sinks.embedded.errors import QueryError

# What writing runs into, whoever writes: time, memory, aborted, space, parts, killed, threads.
_OF_THE_STORE = frozenset({75, 159, 173, 236, 241, 243, 252, 394, 439})
# INSERT_WAS_DEDUPLICATED; and the engine looks for files of /proc that the store's confinement hides, at every query.
_HARMLESS, _CANNOT_OPEN, _PROC = frozenset({389}), 76, "Cannot open file /proc/"
_COUNTS = (
    "SELECT code, value FROM system.errors WHERE NOT remote "
    "SETTINGS max_threads = 1, query_plan_enable_optimizations = 0"
)
# The engine gives all statements of a connection the id of its last streamed one.
_OURS = "SELECT code, name, last_error_message FROM system.errors WHERE NOT remote AND query_id = queryID()"

Counts = Mapping[int, int]


def counts(raw: Any) -> Counts:  # noqa: ANN401 - an object of the engine's extension module
    """Return how often each error has happened in this process."""
    lines = _rows(raw, _COUNTS)
    return {int(code): int(value) for code, value in lines}


def check(raw: Any, before: Counts) -> None:  # noqa: ANN401
    """Look whether the INSERT that has just ended on this connection met an error.

    Raises:
        QueryError: it did; the rows are not stored, or not all.
    """
    grown = {code for code, value in counts(raw).items() if value > before.get(code, 0)} - _HARMLESS
    if not grown:
        return
    for text, name, message in _rows(raw, _OURS):
        code = int(text)
        if code in grown and not (code == _CANNOT_OPEN and message.startswith(_PROC)):
            raise QueryError.of(code, name, message)
    for code in sorted(grown & _OF_THE_STORE):
        raise QueryError.of(code, "UNKNOWN", "Several statements failed at the same time; this may be one of them")


def _rows(raw: Any, text: str) -> list[list[str]]:  # noqa: ANN401
    data = bytes(raw.query(text, "TabSeparated", params={}).bytes()).decode("utf-8", "replace")
    return [line.split("\t") for line in data.splitlines()]
