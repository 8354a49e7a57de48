"""A function line by line: the figures from the store, the text from a directory that the reader names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dashboards import reading
from dashboards.queries import Query
from dashboards.selection import Selection
from dashboards.store import Store
from streams.schema.errors import PerfstreamError, UsageError
from streams.schema.messages import IDENTITY

MAX_LINES = 10_000
MAX_SOURCE_BYTES = 8 * 1024 * 1024
MAX_LOOKED_AT = 100_000
"""Files that are looked at for one whose place under the directory is not the profile's."""
SIMILAR = 8

_OF = """\
    SELECT stack_value, functions[-1] = {function:String} AS at_leaf, files[-1] AS leaf_file, lines[-1] AS leaf_line,
           arrayDistinct(arrayFilter((place, name) -> name = {function:String},
                                     arrayZip(files, lines), functions)) AS places
    FROM (SELECT stack_id, sum(value) AS stack_value FROM samples WHERE @where@ GROUP BY stack_id) AS counted
    INNER JOIN
    (
        SELECT stack_id, CAST(any(functions) AS Array(String)) AS functions, CAST(any(files) AS Array(String)) AS files,
               any(lines) AS lines
        FROM stacks
        WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@) AND has(stacks.functions, {function:String})
        GROUP BY stack_id
    ) AS known USING (stack_id)"""
# A line counts once in a stack, however often recursion went through it.
LINES = Query(
    "lines",
    "SELECT place.1 AS file, place.2 AS line, "
    "sumIf(stack_value, at_leaf AND leaf_file = file AND leaf_line = line) AS self, sum(stack_value) AS total\n"
    f"FROM (\n{_OF}\n) ARRAY JOIN places AS place GROUP BY place ORDER BY file, line LIMIT {{n:UInt32}}",
    IDENTITY,
    typed=True,
)
FUNCTION = Query(
    "function",
    f"SELECT sumIf(stack_value, at_leaf) AS self, sum(stack_value) AS total FROM (\n{_OF}\n)",  # noqa: S608
    IDENTITY,
    typed=True,
)
NAMES = Query(
    "names",
    "SELECT name FROM (SELECT DISTINCT arrayJoin(functions) AS name FROM stacks "
    "WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@)) "
    "WHERE positionCaseInsensitiveUTF8(name, {part:String}) > 0 ORDER BY length(name), name LIMIT {n:UInt32}",
    IDENTITY,
    typed=True,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """One function's figures: of the whole of it, and rows by file and line (file, line, self, total and shares)."""

    function: str
    unit: str
    self: int
    total: int
    whole: int
    rows: list[dict[str, Any]]


def read(store: Store, selection: Selection, function: str) -> Listing | None:
    """Return a function's lines; a part of a name will do when no other name has it. None when there is nothing.

    Raises:
        UsageError: several functions have that part in their names; it says which.
    """
    found = _read(store, selection, function)
    if found.total or found.rows:
        return found
    names = [
        str(row["name"])
        for row in store.rows(*reading.source(NAMES, selection).bound(selection, part=function, n=SIMILAR + 1))
    ]
    if len(names) > 1:
        more = ", ..." if len(names) > SIMILAR else ""
        raise UsageError(f"no function is called '{function}'; did you mean {', '.join(names[:SIMILAR])}{more}")
    return _read(store, selection, names[0]) if names else None


def _read(store: Store, selection: Selection, function: str) -> Listing:
    whole, unit = reading.whole(store, selection)
    rows = store.rows(*reading.source(LINES, selection).bound(selection, function=function, n=MAX_LINES))
    sums = store.rows(*reading.source(FUNCTION, selection).bound(selection, function=function))[0]
    lines = [
        {"function": function, **row, "unit": unit}
        | {f"{kind}_share": row[kind] / whole if whole else 0.0 for kind in ("self", "total")}
        for row in rows
    ]
    return Listing(function, unit, int(sums["self"]), int(sums["total"]), whole, lines)


def find(directory: Path, file: str) -> Path | None:
    """Return where a profile's source file stands under a directory, or None.

    The longest end of its path that exists there; else the one file of its name. Never anything outside: the path comes
    from a profiled process.
    """
    root = directory.resolve()
    parts = [part for part in PurePosixPath(file.replace("\\", "/").replace("\0", "")).parts if part not in ("/", "..")]
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        try:
            if path.is_file() and path.resolve().is_relative_to(root):
                return path
        except OSError:  # a name that no file can have
            continue
    found: list[Path] = []
    looked_at = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        looked_at += len(files)
        if parts and parts[-1] in files and not (path := Path(folder, parts[-1])).is_symlink():
            found.append(path)
        if looked_at > MAX_LOOKED_AT or len(found) > 1:
            return None
    return found[0] if found else None


def source(path: Path) -> list[str]:
    """Return a file's lines, tabs as spaces.

    Raises:
        PerfstreamError: it cannot be read, or is too large for source.
    """
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            raise PerfstreamError(f"{path} is larger than {MAX_SOURCE_BYTES >> 20} MB, which is no source")
        text = path.read_bytes()
    except OSError as error:
        raise PerfstreamError(f"cannot read {path}: {error.strerror}") from error
    return [line.rstrip("\r").expandtabs(4) for line in text.decode("utf-8", "replace").split("\n")]
