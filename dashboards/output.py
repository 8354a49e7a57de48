"""Writes what is generated, and says what is stale or malformed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dashboards import alerts, boards
from dashboards.boards import parts

DIRECTORY = Path(__file__).parent / "generated"
ALERTS = Path(__file__).parents[1] / "deploy" / "grafana" / "provisioning" / "alerting" / "perfstream.yaml"
"""Alert rules are read by Grafana's own provisioning only, so the one copy stands where that looks for it."""
_WIDTH = 24
_BUILT_IN = re.compile(r"__\w+")


def render(directory: Path | None = None) -> dict[Path, str]:
    """Return every generated file: path to text; in ``directory``, or by default where each belongs in the source."""
    files = {(directory or DIRECTORY) / f"{board.uid}.json": parts.build(board) for board in boards.ALL}
    return {**files, (directory / "alerts.yaml" if directory else ALERTS): alerts.build()}


def write(directory: Path | None = None) -> list[Path]:
    """Write every file; returns those that changed. Dashboards that are no longer generated are removed."""
    wanted = render(directory)
    changed = stale(directory)
    for path in changed:
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return changed


def stale(directory: Path | None = None) -> list[Path]:
    """Return the files that differ from what the code says, are missing, or should not be there."""
    wanted = render(directory)
    ours = set((directory or DIRECTORY).glob("perfstream-*.json")) | {path for path in wanted if path.is_file()}
    there = {path: path.read_text(encoding="utf-8") for path in ours}
    return sorted(path for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))


def problems(text: str) -> list[str]:
    """Return what is structurally wrong with a dashboard's JSON; nothing when it is well."""
    try:
        board = json.loads(text)
    except ValueError as error:
        return [f"not JSON: {error}"]
    return list(_problems(board))


def _problems(board: dict[str, Any]) -> Iterator[str]:
    for key in ("uid", "title", "schemaVersion", "panels"):
        if not board.get(key):
            yield f"'{key}' is missing"
    variables = {variable["name"] for variable in board.get("templating", {}).get("list", [])}
    if "datasource" not in variables:
        yield "there is no data source variable"
    panels = board.get("panels", [])
    ids = [panel.get("id") for panel in panels]
    if len(set(ids)) != len(ids) or None in ids:
        yield "panel ids are missing or not unique"
    cells: dict[tuple[int, int], str] = {}
    for panel in panels:
        yield from _panel_problems(panel, variables, cells)


def _panel_problems(panel: dict[str, Any], variables: set[str], cells: dict[tuple[int, int], str]) -> Iterator[str]:
    title, at = panel.get("title", "?"), panel.get("gridPos", {})
    if at.get("x", 0) + at.get("w", 0) > _WIDTH or min(at.get("w", 0), at.get("h", 0)) < 1:
        yield f"panel '{title}' does not fit the grid"
    covered = [(x, y) for x in range(at.get("x", 0), at.get("x", 0) + at.get("w", 0))
               for y in range(at.get("y", 0), at.get("y", 0) + at.get("h", 0))]  # fmt: skip
    over = next((cells[cell] for cell in covered if cell in cells), None)
    if over is not None:
        yield f"panel '{title}' overlaps '{over}'"
    cells.update(dict.fromkeys(covered, title))
    if not panel.get("targets"):
        yield f"panel '{title}' asks nothing"
    for target in panel.get("targets", []):
        if target.get("datasource", {}).get("uid") != "${datasource}":
            yield f"panel '{title}' names a data source instead of using the variable"
        missing = {"rawSql", "format", "queryType", "editorType"} - target.keys()
        if missing:
            yield f"panel '{title}': its target lacks {', '.join(sorted(missing))}"
        sql = target.get("rawSql", "")
        used = {name for name in re.findall(r"\$\{?(\w+)", sql) if not _BUILT_IN.fullmatch(name)}
        if used - variables:
            yield f"panel '{title}' uses unknown variables: {', '.join(sorted(used - variables))}"
        if re.search(r"\{\w+:\w+\}", re.sub(r"\$\{\w+:\w+\}", "", sql)) or "@" in sql:
            yield f"panel '{title}': a parameter was not filled in"
