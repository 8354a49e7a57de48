"""Native blocks of later revisions: the same columns, encoded for both by an encoder of the test's own."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.embedded.errors import QueryError
from sinks.embedded.native import BLOCK_INFO, CUSTOM_SERIALIZATION, revised

INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
FIXED = {
    "UInt8": 1, "Bool": 1, "Enum8('a,b' = 1, 'it\\'s (' = -2)": 1, "Date": 2, "Enum16('x' = 300)": 2, "Float32": 4,
    "DateTime('Europe/Berlin')": 4, "Decimal(9, 2)": 4, "UInt64": 8, "DateTime64(9, 'UTC')": 8, "Decimal(10, 0)": 8,
    "IntervalSecond": 8, "UUID": 16, "IPv6": 16, "Decimal(38, 4)": 16, "Int256": 32, "FixedString(5)": 5,
    "SimpleAggregateFunction(sum, UInt64)": 8,
}  # fmt: skip


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(value):
    return varint(len(value)) + value


class Column:
    """A type: its name, a strategy for a value, and how values are written."""

    def __init__(self, name, value, body, prefix=b""):
        self.name, self.value, self.body, self.prefix = name, value, body, prefix


def fixed(name):
    return Column(name, st.binary(min_size=FIXED[name], max_size=FIXED[name]), b"".join)


def string():
    return Column("String", st.binary(max_size=5) | st.just(b"x" * 300), lambda rows: b"".join(map(text, rows)))


def nullable(inner):
    def body(rows):
        flags = bytes(len(row) == 0 for row in rows)
        return flags + inner.body([row[0] if row else blank for row in rows])

    blank = b"" if inner.name == "String" else bytes(FIXED.get(inner.name, 0))
    return Column(f"Nullable({inner.name})", st.lists(inner.value, max_size=1), body)


def array(inner):
    def body(rows):
        ends, at = [], 0
        for row in rows:
            at += len(row)
            ends.append(struct.pack("<Q", at))
        return b"".join(ends) + inner.body([value for row in rows for value in row])

    return Column(f"Array({inner.name})", st.lists(inner.value, max_size=3), body, inner.prefix)


def low_cardinality(optional):
    def body(rows):
        if not rows:
            return b""
        keys = sorted(set(rows))
        indexes = bytes(keys.index(row) for row in rows)
        head = struct.pack("<QQ", 0x600, len(keys))
        return head + b"".join(map(text, keys)) + struct.pack("<Q", len(rows)) + indexes

    name = "Nullable(String)" if optional else "String"
    return Column(f"LowCardinality({name})", st.binary(max_size=4), body, struct.pack("<Q", 1))


def composed(kind, parts):
    def body(rows):
        return b"".join(part.body([row[at] for row in rows]) for at, part in enumerate(parts))

    names = ", ".join(part.name if kind is None else f"{kind}{at} {part.name}" for at, part in enumerate(parts))
    prefix = b"".join(part.prefix for part in parts)
    return Column(f"Tuple({names})", st.tuples(*(part.value for part in parts)), body, prefix)


def mapping(value):
    pairs = composed(None, [string(), value])
    inner = array(pairs)
    return Column(f"Map(String, {value.name})", inner.value, inner.body, inner.prefix)


LEAVES = st.sampled_from(list(FIXED)).map(fixed) | st.builds(string)
COLUMNS = st.recursive(
    LEAVES | LEAVES.map(nullable) | st.booleans().map(low_cardinality),
    lambda inner: (
        inner.map(array)
        | inner.map(mapping)
        | st.builds(composed, st.sampled_from([None, "name", "Name"]), st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=4,
)


@st.composite
def blocks(draw):
    columns = draw(st.lists(COLUMNS, min_size=1, max_size=4))
    made = []
    for rows in draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)):
        values = [[draw(column.value) for _ in range(rows)] for column in columns]
        made.append((rows, list(zip(columns, values, strict=True))))
    return made


def encode(made, revision):
    out = []
    for rows, columns in made:
        out += [INFO if revision >= BLOCK_INFO else b"", varint(len(columns)), varint(rows)]
        for at, (column, values) in enumerate(columns):
            out += [text(b"c%d" % at), text(column.name.encode())]
            out.append(b"\x00" if revision >= CUSTOM_SERIALIZATION else b"")
            out.append(column.prefix + column.body(values) if rows else b"")
    return b"".join(out)


@pytest.mark.parametrize("revision", [1, 54405, 54480])
@settings(max_examples=50, deadline=None)
@given(made=blocks())
def test_revisions(made, revision):
    assert b"".join(revised(iter([encode(made, 0)]), revision)) == encode(made, revision)


def test_unknown_type_as_the_last_column_only():
    number = text(b"n") + text(b"UInt8") + b"\x07"
    state = text(b"s") + text(b"AggregateFunction(uniq, UInt8)") + b"whatever"
    begin = varint(2) + varint(1)
    kept = b"".join(revised(iter([begin + number + state]), CUSTOM_SERIALIZATION))
    assert kept.endswith(b"\x00whatever")
    with pytest.raises(QueryError) as error:
        list(revised(iter([begin + state + number]), CUSTOM_SERIALIZATION))
    assert error.value.code == 48
    assert "AggregateFunction(uniq, UInt8)" in str(error.value)
