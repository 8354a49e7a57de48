"""Native blocks for clients that announce a protocol revision (``client_protocol_version``: clickhouse-go).

The engine writes revision 0. Later revisions put block info before a block (51903) and a byte after each column's type
that says whether its serialization is custom (54454; here it never is). To place that byte the end of each column must
be found, so this module knows how long a column of each type is. Source: ClickHouse, ``NativeWriter``.
Cost: constant for each column of fixed-size values; about 0.1 microseconds a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from sinks.embedded.errors import QueryError

BLOCK_INFO = 51903
CUSTOM_SERIALIZATION = 54454
_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"

_OF_SIZE = {
    1: "Int8 UInt8 Bool Enum8 Nothing",
    2: "Int16 UInt16 Enum16 Date BFloat16",
    4: "Int32 UInt32 Float32 Date32 DateTime Decimal32 IPv4 Time",
    8: "Int64 UInt64 Float64 DateTime64 Decimal64 Time64",
    16: "Int128 UInt128 UUID IPv6 Decimal128 Point",
    32: "Int256 UInt256 Decimal256",
}
_SIZES = {name: size for size, names in _OF_SIZE.items() for name in names.split()}
_ALIASES = {
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiLineString": "Array(Array(Point))",
    "Polygon": "Array(Array(Point))",
    "MultiPolygon": "Array(Array(Array(Point)))",
}
_NAMED = re.compile(r"^(?:[A-Za-z_]\w*|`(?:[^`\\]|\\.)*`)\s+(?=[A-Z])")


class Kind(NamedTuple):
    """A type, as far as its length matters: ``size`` bytes a row, or a name with inner types."""

    name: str
    size: int = 0
    inner: tuple[Kind, ...] = ()


class _UnknownLengthError(Exception):
    """A column whose end cannot be found."""


def revised(chunks: Iterator[Any], version: int) -> Iterator[bytes]:
    """Yield the same blocks as revision ``version`` has them. A chunk must hold whole blocks.

    Raises:
        QueryError: 48, a column's type has no known length (JSON, Dynamic, Variant, states of aggregate functions) and
            stands before another column.
    """
    for chunk in chunks:
        yield _blocks(bytes(chunk), version)


def _blocks(data: bytes, version: int) -> bytes:
    parts: list[bytes] = []
    at, copied = 0, 0
    while at < len(data):
        if version >= BLOCK_INFO:
            parts += (data[copied:at], _INFO)
            copied = at
        columns, at = _varint(data, at)
        rows, at = _varint(data, at)
        for column in range(columns):
            size, at = _varint(data, at)
            name_end = at + size
            size, at = _varint(data, name_end)
            type_text = data[at : at + size].decode()
            at += size
            if version >= CUSTOM_SERIALIZATION:
                parts += (data[copied:at], b"\x00")
                copied = at
            if rows:
                at = _end(data, at, rows, type_text, last=column == columns - 1)
    parts.append(data[copied:])
    return b"".join(parts)


def _end(data: bytes, at: int, rows: int, type_text: str, *, last: bool) -> int:
    try:
        kind = parse(type_text)
        return _skip(kind, data, _prefix(kind, at), rows)
    except _UnknownLengthError:
        if last:
            # One block a chunk: the column goes on to its end.
            return len(data)
        raise QueryError.of(
            48,
            "NOT_IMPLEMENTED",
            f"Native output of type {type_text[:100]} for this client's protocol; "
            "select it as the last column, or convert it with toString or finalizeAggregation",
        ) from None


@lru_cache(maxsize=4096)
def parse(text: str) -> Kind:
    """Return the kind of a type's text, for instance ``Map(String, Array(Nullable(UInt8)))``."""
    name, bracket, rest = text.strip().partition("(")
    arguments = _split(rest.rstrip()[:-1]) if bracket else []
    if name in _ALIASES:
        return parse(_ALIASES[name])
    if name in _SIZES:
        return Kind(name, _SIZES[name])
    if name.startswith("Interval"):
        return Kind(name, 8)
    if name == "FixedString":
        return Kind(name, int(arguments[0]))
    if name == "Decimal":
        precision = int(arguments[0])
        return Kind(name, 4 if precision <= 9 else 8 if precision <= 18 else 16 if precision <= 38 else 32)
    if name == "SimpleAggregateFunction":
        return parse(arguments[-1])
    if name == "String":
        return Kind(name)
    if name in ("Nullable", "Array", "LowCardinality"):
        return Kind(name, 0, (parse(arguments[0]),))
    if name == "Tuple":
        return Kind(name, 0, tuple(parse(_NAMED.sub("", argument)) for argument in arguments))
    if name in ("Map", "Nested"):
        return Kind("Array", 0, (parse(f"Tuple({rest.rstrip()[:-1]})"),))
    return Kind("?")


def _split(text: str) -> list[str]:
    """Split a type's arguments at the commas that stand outside brackets and quotes."""
    parts, depth, begin, quoted, at = [], 0, 0, "", 0
    while at < len(text):
        sign = text[at]
        if quoted:
            at += sign == "\\"
            quoted = "" if sign == quoted else quoted
        elif sign in "'`":
            quoted = sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "," and depth == 0:
            parts.append(text[begin:at].strip())
            begin = at + 1
        at += 1
    return [*parts, text[begin:].strip()] if text.strip() else []


def _prefix(kind: Kind, at: int) -> int:
    """Return where a column's data begin: every LowCardinality in it puts 8 bytes before them."""
    if kind.name == "LowCardinality":
        return at + 8
    if kind.name == "?":
        raise _UnknownLengthError
    for inner in kind.inner:
        at = _prefix(inner, at)
    return at


def _skip(kind: Kind, data: bytes, at: int, rows: int) -> int:
    """Return where ``rows`` values of a kind that begin at ``at`` end."""
    if kind.size:
        return at + kind.size * rows
    if kind.name == "String":
        return _strings(data, at, rows)
    if kind.name == "Nullable":
        return _skip(kind.inner[0], data, at + rows, rows)
    if kind.name == "Tuple":
        for inner in kind.inner:
            at = _skip(inner, data, at, rows)
        return at if kind.inner else at + rows
    if rows == 0:
        return at
    if kind.name == "Array":
        at += 8 * rows
        return _skip(kind.inner[0], data, at, int.from_bytes(data[at - 8 : at], "little"))
    if kind.name == "LowCardinality":
        return _low_cardinality(kind.inner[0], data, at)
    raise _UnknownLengthError


def _low_cardinality(kind: Kind, data: bytes, at: int) -> int:
    flags = int.from_bytes(data[at : at + 8], "little")
    at += 8
    if kind.name == "Nullable":
        kind = kind.inner[0]
    if flags & 0x100:
        raise _UnknownLengthError
    if flags & 0x200:
        keys = int.from_bytes(data[at : at + 8], "little")
        at = _skip(kind, data, at + 8, keys)
    rows = int.from_bytes(data[at : at + 8], "little")
    return at + 8 + (rows << (flags & 0xF))


def _strings(data: bytes, at: int, rows: int) -> int:
    for _ in range(rows):
        size = data[at]
        at += 1
        if size > 0x7F:
            size, at = _varint(data, at - 1)
        at += size
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
