"""``perfstream deadletter``: what could not be read, and publishing it again."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtime import kafka_command
from streams.schema.errors import SchemaError, UsageError

if TYPE_CHECKING:
    from sinks.deadletter import DeadLetters, Entry, Filter

T = TypeVar("T")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOST = 10_000


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--since", help="Buried since then: 15m, 2h, 3d, or a time (UTC)."),
        click.option("--topic", default="", help="Of this topic; its prefix may be left out."),
        click.option("--reason", default="", help="With this reason: corrupt, unknown_version."),
    ):
        command = option(command)
    return command


_FORMAT = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)


@click.group()
def deadletter() -> None:
    """Show the records that could not be read, and publish them again."""


@deadletter.command("list")
@kafka_command.options
@_filters
@click.option("-n", "n", type=click.IntRange(1, _MOST), default=50, show_default=True, help="The newest so many.")
@click.option("--by", type=click.Choice(["reason", "topic"]), help="Count them instead.")
@_FORMAT
def list_(n: int, by: str | None, form: str, reason: str, topic: str, since: str | None, **where: Any) -> None:  # noqa: ANN401 - the connection
    """List the newest dead letters, the oldest of them first, or count them."""
    which = _filter(reason, topic, since)

    async def counted(box: DeadLetters) -> list[dict[str, Any]]:
        counts = await box.counts(which, str(by))
        return [
            {str(by): name, "letters": c.letters, "bytes": c.bytes, "first": _time(c.first_ms),
             "last": _time(c.last_ms), "error": c.error}
            for name, c in sorted(counts.items(), key=lambda item: -item[1].letters)
        ]  # fmt: skip

    async def listed(box: DeadLetters) -> list[dict[str, Any]]:
        return [_row(entry) for entry in await box.newest(which, n)]

    _print(_run(where, counted if by else listed), form)


@deadletter.command()
@kafka_command.options
@click.argument("place")
@click.option("--bytes", "shown", type=click.IntRange(0, 1 << 20), default=256, show_default=True, help="Shown of it.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the whole payload there.")
@_FORMAT
def show(place: str, shown: int, output: Path | None, form: str, **where: Any) -> None:  # noqa: ANN401 - the connection
    """Show one letter: where it came from, why, its headers, its first bytes.

    PLACE is topic:partition:offset of the original, or the letter's own offset.
    """
    from sinks.deadletter import Filter

    async def found(box: DeadLetters) -> tuple[Entry, bytes]:
        entries = await box.newest(Filter(places=frozenset({place})), 1)
        if not entries:
            raise UsageError(f"there is no dead letter {place}; 'perfstream deadletter list' shows them")
        letter = await box.whole(entries[0].letter.offset)
        return replace(entries[0], letter=letter), letter.value or b""

    entry, value = _run(where, found)
    letter = entry.letter
    if output is not None:
        try:
            output.write_bytes(value)
        except OSError as error:
            raise UsageError(f"the payload cannot be written to {output}: {error.strerror}") from error
    head = value[:shown]
    if form == "json":
        told = _row(entry) | {
            "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
            "cut": letter.cut,
            "headers": [[name, None if item is None else item.decode("utf-8", "backslashreplace")]
                        for name, item in letter.headers],
            "hex": head.hex(),
        }  # fmt: skip
        click.echo(json.dumps([told], indent=2))
        return
    for name, item in (_row(entry) | {"key": letter.key or b"", "cut": letter.cut}).items():
        click.echo(f"{name:<10}{_plain(item)}".rstrip())
    for name, content in letter.headers:
        click.echo(f"header    {_plain(name)} = {_plain(content)}")
    click.echo(_hexdump(head))
    if len(value) > shown:
        click.echo(f"... {len(value) - shown} bytes more; --output FILE writes all")


@deadletter.command()
@kafka_command.options
@click.argument("places", nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="Every letter that is there.")
@click.option("--to", default="", help="To this topic instead of the one that each came from.")
@click.option("--force", is_flag=True, help="Also those that still do not decode; they will come back.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(
    places: Sequence[str], everything: bool, to: str, force: bool, yes: bool, reason: str, topic: str,
    since: str | None, **where: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Publish letters again, as they were, each once; say which by PLACES, by a filter, or --all.

    A letter that was replayed before, also by a command that was ended half way, is not published a second time.
    """
    which = replace(_filter(reason, topic, since), places=frozenset(places))
    if not (places or reason or topic or since or everything):
        raise UsageError("say which letters: places, --reason, --topic, --since, or --all")

    async def chosen(box: DeadLetters) -> list[Entry]:
        return await box.newest(which, _MOST, exact=True)

    entries = _run(where, chosen)
    known = {entry.letter.place for entry in entries} | {str(entry.letter.offset) for entry in entries}
    if missing := [place for place in places if place not in known]:
        raise UsageError(f"there is no dead letter {missing[0]}; 'perfstream deadletter list' shows them")
    waiting = [entry for entry in entries if not (entry.note and entry.note.at)]
    if not waiting:
        click.echo(f"nothing to do: {len(entries)} letters are meant, all of them replayed before")
        return
    if not yes:
        topics = ", ".join(sorted({to or entry.letter.topic for entry in waiting}))
        click.confirm(f"publish {len(waiting)} letters again to {_plain(topics)}?", abort=True, err=True)

    async def go(box: DeadLetters) -> tuple[dict[str, str], dict[str, str]]:
        return await box.replay(waiting, to, force=force)

    done, left = _run(where, go)
    for place, at in done.items():
        click.echo(f"{_plain(place)} -> {_plain(at)}")
    for place, why in left.items():
        click.echo(f"{_plain(place)}: {_plain(why)}", err=True)
    if left:
        raise SchemaError(
            f"{len(done)} letters were published again, {len(left)} were left; --force takes any but cut ones"
        )


def _filter(reason: str, topic: str, since: str | None) -> Filter:
    from sinks.deadletter import Filter

    return Filter(reason, topic, _since(since) if since else 0)


def _since(text: str) -> int:
    """Return the time in milliseconds that ``15m`` or an ISO time stands for."""
    if ago := re.fullmatch(r"(\d{1,9})([smhdw])", text):
        return max(1, round((time.time() - int(ago[1]) * _UNITS[ago[2]]) * 1000))
    try:
        when = datetime.fromisoformat(text)
        when = when.replace(tzinfo=when.tzinfo or UTC)
        return max(1, round(when.timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--since {text!r} is no time; use 15m, 2h, 3d or 2026-01-31T12:00") from error


def _run(where: dict[str, Any], work: Callable[[DeadLetters], Coroutine[Any, Any, T]]) -> T:
    from sinks import deadletter as box

    found = kafka_command.find(where["config"], where["kafka"], where["topic_prefix"])

    async def main() -> T:
        async with box.opened(found.kafka.client_options(), found.topic_prefix, _Progress()) as opened:
            return await work(opened)

    return asyncio.run(main())


class _Progress:
    """Says on a terminal how far it is, once a second."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        if time.monotonic() - self._at > 1 and sys.stderr.isatty():
            self._at = time.monotonic()
            click.echo(f"\r{done} of {of} \r", err=True, nl=False)


def _row(entry: Entry) -> dict[str, Any]:
    letter = entry.letter
    return {
        "offset": letter.offset, "time": _time(letter.time_ms), "place": letter.place, "reason": letter.reason,
        "bytes": letter.size, "replayed": entry.replayed, "error": letter.error,
    }  # fmt: skip


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(ms)


def _plain(value: object) -> str:
    """Return text that a terminal shows and does not obey."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _print(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("no dead letters", err=True)
        return
    texts = [list(rows[0]), *([_plain(value)[:120] for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _hexdump(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines) or "(no payload)"
