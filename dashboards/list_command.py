"""``perfstream profile list FUNCTION``: its source with the figures beside each line."""

from __future__ import annotations

from pathlib import Path

import click

from dashboards import listing, show
from dashboards.listing import Listing

_FIGURES = ("self", "total")


def write(found: Listing, directory: Path | None, context: int) -> None:
    """Write the figures by line; with a directory beside the source, some lines of context around what has any."""
    for kind in _FIGURES:
        value = getattr(found, kind)
        share = value / found.whole if found.whole else 0.0
        click.echo(f"{kind} {show.human(value, found.unit)} ({share:.1%})", nl=False)
        click.echo("  " if kind == "self" else f"  of {show.clean(found.function)}", nl=kind == "total")
    for file in dict.fromkeys(row["file"] for row in found.rows):
        rows = {row["line"]: row for row in found.rows if row["file"] == file}
        path = listing.find(directory, file) if directory and file and any(rows) else None
        click.echo(f"\n{show.clean(str(path or file or 'no file known'))}")
        if directory and file and any(rows) and path is None:
            click.echo(f"{show.clean(file)} is not under {directory}", err=True)
        text = listing.source(path) if path else None
        if text is not None and max(rows) > len(text):
            click.echo(f"{path} has {len(text)} lines, the profile knows line {max(rows)}: another version?", err=True)
        show.write_table(_lines(rows, text, context, found.unit), right=("self", "total", "line"))


def _lines(rows: dict[int, dict[str, object]], text: list[str] | None, context: int, unit: str) -> list[dict[str, str]]:
    """Return a table's rows: lines with figures, and with a text those around them and a mark for what is left out."""
    shown = set(rows)
    if text is not None:
        shown |= {near for line in rows if line for near in range(line - context, line + context + 1)}
        shown &= {*range(1, len(text) + 1), *rows}
    result: list[dict[str, str]] = []
    last = None
    for line in sorted(shown):
        if text is not None and last is not None and line > last + 1:
            result.append({"self": "", "total": "", "line": "", "source": "…"})
        row = rows.get(line)
        figures = {kind: show.human(row[kind], unit) if row and row[kind] else "" for kind in _FIGURES}  # type: ignore[arg-type]
        result.append({**figures, "line": str(line) if line else "?"})
        if text is not None:
            result[-1]["source"] = text[line - 1] if 0 < line <= len(text) else ""
        last = line
    return result


def with_source(found: Listing, directory: Path) -> None:
    """Add the text of its line to each row, None where there is none."""
    texts: dict[str, list[str]] = {}
    for file in {row["file"] for row in found.rows if row["file"]}:
        path = listing.find(directory, file)
        texts[file] = listing.source(path) if path else []
    for row in found.rows:
        text = texts.get(row["file"], [])
        row["source"] = text[row["line"] - 1] if 0 < row["line"] <= len(text) else None
