"""``perfstream scrape``: one profile of one target, now, as a table of functions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, urlsplit

import click

from runtime.settings import Secret
from streams.schema.errors import CorruptRecordError, TargetUnavailableError, UsageError

if TYPE_CHECKING:
    from collectors.scrapers.pprof import Profile

_EXAMPLE = "http://127.0.0.1:6060/debug/pprof/heap"
_UNITS = {
    "nanoseconds": ((3600e9, "h"), (60e9, "min"), (1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns")),
    "bytes": ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")),
}


@click.command(short_help="Fetch one pprof profile and show its functions.")
@click.argument("url")
@click.option("-n", "rows", type=click.IntRange(min=1), default=20, show_default=True, help="Rows to show.")
@click.option("--type", "kind", help="The sample type, for example alloc_space; the profile's default when absent.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--ca-file", default="", help="Certificates to trust instead of the system's.")
@click.option("--cert-file", default="", help="A client certificate.")
@click.option("--key-file", default="", help="The client certificate's key.")
@click.option("--insecure", is_flag=True, help="Accept any certificate.")
@click.option("--timeout", type=click.FloatRange(min=0.1, max=300), default=10.0, show_default=True,
              help="Seconds to wait, those that the target samples (seconds=N) not counted.")  # fmt: skip
def scrape(
    url: str,
    rows: int,
    kind: str | None,
    form: str,
    ca_file: str,
    cert_file: str,
    key_file: str,
    insecure: bool,
    timeout: float,
) -> None:
    """Fetch one profile from URL and show its top functions: self is in the function, total with what it calls.

    URL is the whole address, for example http://127.0.0.1:6060/debug/pprof/profile?seconds=5
    PERFSTREAM_SCRAPE_AUTHORIZATION is the value of the Authorization header; `ps` would show an argument.
    """
    from collectors.scrapers import pprof
    from collectors.scrapers.fetch import Access, fetch

    parts = _checked(url)
    seconds = _seconds(parts)
    authorization = os.environ.get("PERFSTREAM_SCRAPE_AUTHORIZATION", "")
    access = Access(Secret(authorization), ca_file, cert_file, key_file, insecure)
    if any(c < " " or c > "~" for c in authorization):
        raise UsageError("the authorization must be one line of plain ASCII")
    where = f"{parts.netloc}{parts.path}"

    async def ask() -> bytes:
        async with _waiting(where, seconds):
            return await fetch(url, access, seconds + timeout, pprof.MAX_COMPRESSED)

    try:
        profile = pprof.decode(asyncio.run(ask()))
    except TargetUnavailableError as error:
        raise TargetUnavailableError(f"{where}: {error}", error.reason) from error
    except CorruptRecordError as error:
        raise CorruptRecordError(f"{where}: {error}; give a profile's address, for example {_EXAMPLE}") from error
    chosen = kind or profile.default
    if chosen not in profile.types:
        raise UsageError(f"this profile has no type {chosen!r}; it has {', '.join(profile.types)}")
    functions, whole = top(profile, chosen)
    _write(functions[:rows], whole, chosen, profile.units[profile.types.index(chosen)], form)
    if not functions:
        click.echo(f"{where}: the profile is empty for {chosen}", err=True)


def top(profile: Profile, kind: str) -> tuple[list[tuple[str, int, int]], int]:
    """Return ([(function, self, total)], the sum of one type), ordered by self; recursion counts once in total."""
    from streams.schema import stacks

    own: dict[str, int] = {}
    total: dict[str, int] = {}
    values = profile.values[:, profile.types.index(kind)].tolist()
    for text, value in zip(profile.texts, values, strict=True):
        if not value:
            continue
        functions = [frame.function for frame in stacks.split(text)]
        own[functions[-1]] = own.get(functions[-1], 0) + value
        for function in dict.fromkeys(functions):
            total[function] = total.get(function, 0) + value
    found = [(function, own.get(function, 0), total[function]) for function in total]
    return sorted(found, key=lambda row: (-row[1], -row[2], row[0])), sum(values)


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        well = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.netloc.isascii()
    except ValueError as error:
        raise UsageError(f"that is not an address: {error}; for example {_EXAMPLE}") from error
    if parts.username is not None:
        raise UsageError("the address must not hold a password; use PERFSTREAM_SCRAPE_AUTHORIZATION")
    if not well or any(c <= " " for c in parts.netloc):
        raise UsageError(f"give a whole address, for example {_EXAMPLE}")
    if parts.path in ("", "/"):
        raise UsageError(f"the address names no profile; for example {_EXAMPLE}")
    return parts


def _seconds(parts: SplitResult) -> float:
    given = parse_qs(parts.query).get("seconds", [""])[0]
    if not given:
        return 30.0 if parts.path.endswith("/profile") else 0.0  # Go's own default
    if not (given.isascii() and given.isdecimal() and 1 <= int(given[:6]) <= 3600):
        raise UsageError("seconds in the address must be 1 to 3600")
    return float(given)


@contextlib.asynccontextmanager
async def _waiting(where: str, seconds: float) -> AsyncIterator[None]:
    """Show on a terminal what is waited for, and since when."""
    task = asyncio.create_task(_show(where, seconds)) if sys.stderr.isatty() else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            click.echo("\r\x1b[K", nl=False, err=True)


async def _show(where: str, seconds: float) -> None:
    began = time.monotonic()
    while True:
        passed = time.monotonic() - began
        limit = f" of {seconds:.0f}" if seconds else ""
        click.echo(f"\r\x1b[Kwaiting for {where[:60]} {passed:.0f}{limit} s", nl=False, err=True)
        await asyncio.sleep(0.25)


def _write(functions: list[tuple[str, int, int]], whole: int, kind: str, unit: str, form: str) -> None:
    if form == "json":
        listed = [{"function": name, "self": own, "total": total} for name, own, total in functions]
        click.echo(json.dumps(listed, indent=1, ensure_ascii=False))
        return
    click.secho(f"{kind}: {_human(whole, unit)}", bold=True)
    lines = [("self", "self %", "total", "total %", "function")]
    for name, own, total in functions:
        shares = (f"{value / whole:.1%}" if whole else "-" for value in (own, total))
        lines.append((_human(own, unit), next(shares), _human(total, unit), next(shares), name))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines if functions else ():
        click.echo("  ".join([*(cell.rjust(width) for cell, width in zip(line, widths, strict=False)), line[4]]))


def _human(value: int, unit: str) -> str:
    for size, name in _UNITS.get(unit, ()):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}" if abs(value) < 1000 * size else f"{value / size:,.0f} {name}"
    return f"{value:,}"
