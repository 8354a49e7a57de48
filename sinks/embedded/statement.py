"""What a statement is, as far as the server must know before the engine sees it: kind, output format, inline data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sinks.embedded.errors import QueryError

_TOKEN = re.compile(
    rb"(?P<space>\s+|--[^\n]*|#[ !][^\n]*|/\*.*?(?:\*/|\Z))"
    # What is never closed goes on to the end: every byte is looked at once, whatever is sent.
    rb"|(?P<quoted>'(?:[^'\\]++|\\.|'')*+\\?(?:'|\Z)|`(?:[^`\\]++|\\.|``)*+\\?(?:`|\Z)"
    rb"|\"(?:[^\"\\]++|\\.|\"\")*+\\?(?:\"|\Z))"
    rb"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>\d[\w.]*)|(?P<sign>.)",
    re.DOTALL,
)
_READS = frozenset({b"SELECT", b"WITH", b"FROM", b"("})
_KINDS = {b"SET": "set", b"KILL": "kill"}
_STATEFUL = frozenset({b"SET", b"USE"})

STREAMED = frozenset((
    "native", "rowbinary", "tabseparated", "tabseparatedraw", "tsv", "tsvraw", "csv", "jsoneachrow", "jsonlines",
    "ndjson", "jsoncompacteachrow", "lineasstring",
))  # fmt: skip
"""Formats whose parts can be sent as they come. The engine's stream makes every part of the others as if it were the
whole (the names again, an end in the middle), so they are built whole."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One analysed statement.

    ``kind``: select, insert, insert_select, set, kill, or other. ``text``: the statement without inline data.
    ``format``: the one named in it, "" when none is. ``data``: inline data after ``VALUES`` or ``FORMAT name``.
    ``totals``: it may return more than rows. ``stateful``: it changes its session.
    """

    kind: str
    text: bytes
    format: str = ""
    data: bytes = b""
    totals: bool = False
    stateful: bool = False


def analyse(query: bytes, *, whole: bool = True) -> Statement | None:
    """Analyse a statement, or the head of one.

    Args:
        query: the statement, with inline data if it has any.
        whole: False when ``query`` is the beginning of a longer body.

    Returns:
        The statement; None when the head does not yet tell where the data of an INSERT begin.

    Raises:
        QueryError: it would read or write a file of the machine that the server runs on.
    """
    tokens = _tokens(query)
    first = next(tokens, None)
    if first is None:
        return Statement("other", query) if whole else None
    word = first[0]
    if word == b"INSERT":
        return _insert(query, tokens, whole)
    if not whole:
        return None
    kind = "select" if word in _READS else _KINDS.get(word, "other")
    format_name, totals, temporary = _tail(query, tokens, depth=int(word == b"("))
    return Statement(kind, query, format_name, b"", totals, word in _STATEFUL or (word == b"CREATE" and temporary))


def _tokens(query: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (upper-case word, sign or b"", start, end) of each token that is not space."""
    for found in _TOKEN.finditer(query):
        group = found.lastgroup
        if group == "word":
            yield found.group().upper(), found.start(), found.end()
        elif group == "sign":
            yield found.group(), found.start(), found.end()
        elif group != "space":
            yield b"", found.start(), found.end()


def _insert(query: bytes, tokens: Iterator[tuple[bytes, int, int]], whole: bool) -> Statement | None:
    depth = 0
    opened = False
    for word, start, end in tokens:
        if word == b"(":
            depth += 1
            opened = True
            continue
        if word == b")":
            depth -= 1
        elif opened and word in (b"SELECT", b"WITH") and depth == 1:
            return Statement("insert_select", query) if whole else None
        elif depth == 0 and word == b"VALUES":
            # At the cut of a head, VALUES could be the beginning of a longer name.
            if end == len(query) and not whole:
                return None
            return Statement("insert", query[:start].rstrip(), "Values", query[end:])
        elif depth == 0 and word == b"FORMAT":
            return _formatted(query, start, tokens, whole)
        elif depth == 0 and word == b"INFILE":
            raise QueryError.of(78, "UNKNOWN_TYPE_OF_QUERY", "FROM INFILE works in a client only; send the data")
        elif depth == 0 and word in (b"SELECT", b"WITH", b"WATCH"):
            return Statement("insert_select", query) if whole else None
        opened = False
    return Statement("insert", query.rstrip().rstrip(b";"), "Values") if whole else None


def _formatted(query: bytes, start: int, tokens: Iterator[tuple[bytes, int, int]], whole: bool) -> Statement | None:
    named = next(tokens, None)
    if named is None:
        return Statement("insert", query[:start].rstrip(), "Values") if whole else None
    _word, begin, at = named
    name = query[begin:at].decode("ascii", "replace")
    rest = query[at : at + 4096]
    skip = len(rest) - len(rest.lstrip(b" \t\f"))
    if rest[skip : skip + 1] == b";":
        skip += 1
    if rest[skip : skip + 1] == b"\r":
        skip += 1
    if not whole and skip >= len(rest):
        return None
    if rest[skip : skip + 1] == b"\n":
        skip += 1
    return Statement("insert", query[:start].rstrip(), name, query[at + skip :])


def _tail(query: bytes, tokens: Iterator[tuple[bytes, int, int]], depth: int) -> tuple[str, bool, bool]:
    """Return (format named at the top level, whether TOTALS stands in it, whether TEMPORARY stands in it)."""
    named = ""
    totals = temporary = False
    before = b""
    for word, start, end in tokens:
        if word in (b"(", b"["):
            depth += 1
        elif word in (b")", b"]"):
            depth -= 1
        elif word == b"TOTALS":
            totals = True
        elif word == b"OUTFILE" and before == b"INTO":
            raise QueryError.of(344, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE works in a client only")
        elif word == b"TEMPORARY":
            temporary = True
        elif depth == 0 and before == b"FORMAT" and word:
            named = query[start:end].decode("ascii", "replace")
        before = word
    return named, totals, temporary
