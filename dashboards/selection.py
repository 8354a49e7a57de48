r"""Selections: which profiles or latencies, of whom, when. The same everywhere, compiled to bound parameters only.

A matcher is ``service{label="value", other=~"regex"}`` with ``=``, ``!=``, ``=~`` and ``!~``; regular expressions are
RE2 and match the whole value, as in PromQL. Labels are the identity columns, and what a table has besides (a latency's
probe). In quotes a backslash stands before a quote or a backslash, and makes ``\n``, ``\r`` and ``\t``; before anything
else it stays, so that ``"\d+"`` need not be written twice. Between backticks everything is as it stands.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from streams.schema.errors import UsageError
from streams.schema.messages import IDENTITY

OPERATORS = ("!=", "!~", "=~", "=")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CONDITIONS = {
    "=": "{label} = {{{name}:String}}",
    "!=": "{label} != {{{name}:String}}",
    "=~": "match({label}, {{{name}:String}})",
    "!~": "NOT match({label}, {{{name}:String}})",
}
_BEYOND_RE2 = re.compile(r"(\\[1-9]|\(\?(?:<?[=!]|[>(]|P=))|\\.", re.DOTALL)
# What RE2 knows and Python's parser does not; each is replaced by as many characters that mean something to both.
_ONLY_RE2 = re.compile(r"(\\[pP](?:\{\^?\w+\}|[A-Za-z])|\\[zCQE])|\\.", re.DOTALL)
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
_MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Match:
    """One condition: an identity column, an operator, a value."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What to read: a profile type ("" for what has none), conditions, and a time range [start, end) in UTC."""

    start: datetime
    end: datetime
    type: str = "cpu"
    matches: tuple[Match, ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(f'{m.label}{m.operator}"{m.value}"' for m in self.matches)
        what = f"{self.type}{{{inside}}}" if inside else self.type or "anything"
        return f"{what} from {self.start:%Y-%m-%d %H:%M:%S} to {self.end:%Y-%m-%d %H:%M:%S} UTC"

    def also(self, **labels: str | None) -> Selection:
        """Return the selection with one more equality for each label that is not None."""
        more = tuple(Match(label, "=", value) for label, value in labels.items() if value is not None)
        return replace(self, matches=self.matches + more)

    def where(self, labels: tuple[str, ...], time: str = "time", typed: bool = True) -> tuple[str, dict[str, object]]:
        """Return (condition, parameters) for a table that has these label columns and this time column.

        Raises:
            UsageError: a label of the selection is not kept in that table.
        """
        parts = [
            f"{time} >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')",
            f"{time} < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC')",
        ]
        parameters: dict[str, object] = {"start_ms": _milliseconds(self.start), "end_ms": _milliseconds(self.end)}
        if typed:
            parts.append("type = {type:String}")
            parameters["type"] = self.type
        for number, match in enumerate(self.matches):
            if match.label not in labels:
                raise UsageError(f"'{match.label}' is not kept here; select by {', '.join(labels)}")
            name = f"m{number}"
            parts.append(_CONDITIONS[match.operator].format(label=match.label, name=name))
            parameters[name] = f"^(?:{match.value})$" if "~" in match.operator else match.value
        return " AND ".join(parts), parameters


def _milliseconds(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def parse_matcher(text: str, labels: tuple[str, ...] = IDENTITY) -> tuple[Match, ...]:
    """Return the conditions of a matcher such as ``myapp{version="v1.0", node=~"a.*"}`` over these labels.

    Raises:
        UsageError: it cannot be read; the message points at the character.
    """
    if len(text) > _MAX_LENGTH:
        raise UsageError(f"the selection is longer than {_MAX_LENGTH} characters")
    return _Parser(text, labels).parse()


class _Parser:
    def __init__(self, text: str, labels: tuple[str, ...]) -> None:
        self._text = text
        self._labels = labels
        self._at = 0

    def parse(self) -> tuple[Match, ...]:
        matches = []
        name = re.match(r"\s*([^\s{}\"',=~!]*)\s*", self._text)
        assert name is not None
        self._at = name.end()
        if name[1]:
            matches.append(Match("service", "=", name[1]))
        if self._peek() == "{":
            matches += self._braces()
        elif not name[1]:
            self._fail("expected a service name or '{'")
        self._space()
        if self._at < len(self._text):
            self._fail("nothing may follow the selection" if matches else "expected '{'")
        return tuple(matches)

    def _braces(self) -> list[Match]:
        matches: list[Match] = []
        self._at += 1
        self._space()
        while self._peek() != "}":
            matches.append(self._condition())
            self._space()
            if self._peek() == ",":
                self._at += 1
                self._space()
            elif self._peek() != "}":
                self._fail("expected ',' or '}'")
        self._at += 1
        return matches

    def _condition(self) -> Match:
        found = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").match(self._text, self._at)
        if found is None:
            self._fail("expected a label" if self._at < len(self._text) else "expected '}'")
        if found[0] not in self._labels:
            self._fail(f"unknown label '{found[0]}'; known: {', '.join(self._labels)}")
        self._at = found.end()
        self._space()
        operator = next((op for op in OPERATORS if self._text.startswith(op, self._at)), None)
        if operator is None:
            self._fail("expected one of = != =~ !~")
        self._at += len(operator)
        self._space()
        value, places = self._string()
        if "~" in operator:
            self._expression(value, places)
        return Match(found[0], operator, value)

    def _expression(self, value: str, places: list[int]) -> None:
        """Refuse what is no regular expression, and what RE2 does not know, at its character."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what may mean something else in a later Python
                re.compile(_ONLY_RE2.sub(lambda found: "x" * len(found[0]) if found[1] else found[0], value))
        except re.error as error:
            self._at = places[min(error.pos or 0, len(value))]
            self._fail(f"not a regular expression: {error.msg}")
        for found in _BEYOND_RE2.finditer(value):
            if found[1]:
                self._at = places[found.start()]
                self._fail("not a regular expression of RE2, which has no look-around and no back-references")

    def _string(self) -> tuple[str, list[int]]:
        """Return a value and where each of its characters, and its end, stands in the text."""
        quote = self._peek()
        if quote not in ('"', "'", "`"):
            self._fail("expected a value in quotes")
        start = self._at
        self._at += 1
        value, places = [], []
        while (character := self._peek()) != quote:
            if not character:
                self._at = start
                self._fail("this quote is not closed")
            places.append(self._at)
            escaped = _ESCAPES.get(self._text[self._at + 1 : self._at + 2]) if quote != "`" else None
            if character == "\\" and escaped:
                self._at += 1
                character = escaped
            value.append(character)
            self._at += 1
        places.append(self._at)
        self._at += 1
        return "".join(value), places

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _space(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _fail(self, what: str) -> NoReturn:
        shown = "".join(c if c.isprintable() else " " for c in self._text)  # one line, whatever stands in it
        raise UsageError(f"{what}, at character {self._at + 1}:\n  {shown}\n  {' ' * self._at}^")


def duration(text: str) -> timedelta:
    """Return the length of ``90s``, ``15m``, ``6h``, ``2d``, ``1w`` or a sum of those such as ``1h30m``.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"([0-9]{1,9}[smhdw])+", text):
        raise UsageError(f"'{text}' is not a duration; write for example 90s, 15m, 6h, 2d or 1h30m")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))
    if not 0 < seconds <= 10 * 366 * 86400:
        raise UsageError(f"'{text}' is not between a second and ten years")
    return timedelta(seconds=seconds)


def instant(text: str, now: datetime) -> datetime:
    """Return a time: ISO 8601 (UTC unless it says otherwise), Unix seconds, ``now``, or ``now-15m``.

    Raises:
        UsageError: it is none.
    """
    if text == "now":
        return now
    if text.startswith("now-"):
        return now - duration(text[4:])
    try:
        if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
            return datetime.fromtimestamp(float(text), UTC)
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is not a time; write for example 2026-01-31T12:00, or now-15m") from error
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def make(
    matcher: str = "",
    *,
    type: str = "cpu",  # noqa: A002 - the field's word
    since: str = "",
    start: str = "",
    end: str = "",
    now: datetime | None = None,
    more: tuple[str, ...] = (),
    **labels: str | None,
) -> Selection:
    """Return a selection from what a command was given; the default is the last 15 minutes of CPU time.

    ``more`` are the labels that a matcher may name beside those of the identity.

    Raises:
        UsageError: a part cannot be read, or the range is empty.
    """
    now = now or datetime.now(UTC)
    if since and start:
        raise UsageError("give either --since or --from, not both")
    until = instant(end, now) if end else now
    begin = instant(start, now) if start else until - duration(since or "15m")
    if begin >= until:
        raise UsageError(f"the time range is empty: {begin.isoformat()} is not before {until.isoformat()}")
    unknown = sorted(set(labels) - set(IDENTITY))
    if unknown:
        raise UsageError(f"unknown label '{unknown[0]}'; known: {', '.join(IDENTITY)}")
    return Selection(begin, until, type, parse_matcher(matcher, (*IDENTITY, *more)) if matcher else ()).also(**labels)
