"""What a Java Flight Recorder chunk says of itself: its header, and the layout of its events and constants.

Nothing about the order of fields is assumed: the chunk's own metadata are followed. Sources: jdk.jfr's ChunkHeader and
MetadataReader (OpenJDK).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from collectors.ingest.jfr_bytes import Cursor
from streams.schema.errors import CorruptRecordError

MAGIC = b"FLR\0"
_HEADER = struct.Struct(">4sHHqqqqqqqI")
_COMPRESSED_INTEGERS = 1
_MAX_TICKS = 1 << 33
_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 16
_MAX_STEPS = 2_000

NUMBER, BYTE, FLOAT, DOUBLE, TEXT, ARRAY = "number", "byte", "float", "double", "text", "array"
WIDTH = {BYTE: 1, FLOAT: 4, DOUBLE: 8}
# A boolean is a byte of 0 or 1, which reads the same as a number.
_PRIMITIVE = {
    "boolean": NUMBER, "char": NUMBER, "short": NUMBER, "int": NUMBER, "long": NUMBER,
    "byte": BYTE, "float": FLOAT, "double": DOUBLE, "java.lang.String": TEXT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """One chunk: its first and last byte, where its metadata stand, and its clock."""

    begin: int
    end: int
    metadata: int
    start_ns: int
    duration_ns: int
    ticks_per_s: int
    size: int = _HEADER.size


@dataclass(frozen=True, slots=True)
class Step:
    """One value in a row of bytes. ``inner`` is the layout of an array's elements; ``unit`` is a time span's."""

    kind: str
    name: str
    unit: str = ""
    inner: tuple[Step, ...] = ()


@dataclass(slots=True)
class Field:
    """A field as the metadata declare it."""

    name: str
    type: int
    constant: bool
    array: bool
    unit: str = ""


@dataclass(slots=True)
class Kind:
    """A class as the metadata declare it."""

    number: int
    name: str
    fields: list[Field] = field(default_factory=list)


def header(data: bytes, at: int) -> Header:
    """Return the header of the chunk that begins at ``at``.

    Raises:
        CorruptRecordError: there is none, it is cut short, not finished, or of a version that is not known.
    """
    if data[at : at + len(MAGIC)] != MAGIC:
        raise CorruptRecordError("this is no JFR recording")
    if len(data) - at < _HEADER.size:
        raise CorruptRecordError("the JFR recording is cut short")
    _, major, minor, size, pool, metadata, start, duration, _ticks, rate, flags = _HEADER.unpack_from(data, at)
    if major != 2:
        raise CorruptRecordError(f"JFR version {major}.{minor} is not known, only 2")
    if not flags & _COMPRESSED_INTEGERS and minor > 0:
        raise CorruptRecordError("JFR recordings without compressed integers are not read")
    if size > len(data) - at:
        raise CorruptRecordError("the JFR recording is cut short")
    if size < _HEADER.size or pool <= 0 or not _HEADER.size <= metadata < size:
        raise CorruptRecordError("the JFR recording was not finished, or its header is wrong")
    if not 0 < rate <= _MAX_TICKS:
        raise CorruptRecordError("the JFR recording's clock has no possible rate")
    return Header(at, at + size, at + metadata, start, max(0, duration), rate)


class Metadata:
    """The classes of one chunk, by number and by name."""

    def __init__(self, data: bytes, chunk: Header) -> None:
        begin = Cursor(data, chunk.metadata, chunk.end)
        size = begin.number()
        cursor = Cursor(data, begin.at, min(chunk.end, chunk.metadata + size))
        if cursor.number() != 0:
            raise CorruptRecordError("the JFR recording's metadata are not where its header says")
        for _ in range(3):
            cursor.number()  # start, duration, number of these metadata
        self._strings = [_string(cursor) for _ in range(cursor.count())]
        self._room = _MAX_ELEMENTS
        self.kinds: dict[int, Kind] = {}
        self._annotations: list[tuple[Field, int, str]] = []  # field, the annotation's class, its value
        self._element(cursor, None, None, 0)
        for declared, number, unit in self._annotations:
            if number in self.kinds and self.kinds[number].name == "jdk.jfr.Timespan":
                declared.unit = unit
        # A class that was loaded twice has two numbers.
        self.numbers: dict[str, list[int]] = {}
        for kind in self.kinds.values():
            self.numbers.setdefault(kind.name, []).append(kind.number)

    def _element(self, cursor: Cursor, kind: Kind | None, owner: Field | None, depth: int) -> None:
        self._room -= 1
        if self._room < 0 or depth > _MAX_DEPTH:
            raise CorruptRecordError("the JFR recording's metadata have too many elements")
        name = self._string(cursor)
        attributes = {}
        for _ in range(cursor.count()):
            key = self._string(cursor)
            attributes[key] = self._string(cursor)
        if name == "class":
            kind = Kind(_integer(attributes.get("id")), attributes.get("name", ""))
            self.kinds[kind.number] = kind
        elif name == "field" and kind is not None:
            owner = Field(
                attributes.get("name", ""),
                _integer(attributes.get("class")),
                attributes.get("constantPool") == "true",
                attributes.get("dimension", "0") != "0",
            )
            kind.fields.append(owner)
        elif name == "annotation" and owner is not None:
            unit = attributes.get("value", attributes.get("value-0", ""))
            self._annotations.append((owner, _integer(attributes.get("class")), unit))
        for _ in range(cursor.count()):
            self._element(cursor, kind, owner, depth + 1)

    def _string(self, cursor: Cursor) -> str:
        index = cursor.number()
        if index >= len(self._strings):
            raise CorruptRecordError("the JFR recording's metadata name a text that is not there")
        return self._strings[index]

    def layout(self, number: int) -> tuple[Step, ...]:
        """Return the values that one event or constant of a class consists of, in their order.

        Raises:
            CorruptRecordError: the class is not declared, or contains itself.
        """
        steps: list[Step] = []
        self._room = _MAX_STEPS
        self._flatten(number, "", "", steps, 0)
        return tuple(steps)

    def _flatten(self, number: int, prefix: str, unit: str, steps: list[Step], depth: int) -> None:
        kind = self.kinds.get(number)
        if kind is None:
            raise CorruptRecordError("the JFR recording has values of a class that it does not declare")
        self._room -= 1 + len(kind.fields)
        if depth > _MAX_DEPTH or self._room < 0:
            raise CorruptRecordError("a class of the JFR recording has too many fields")
        if kind.name in _PRIMITIVE:
            steps.append(Step(_PRIMITIVE[kind.name], prefix, unit))
            return
        for declared in kind.fields:
            name = f"{prefix}.{declared.name}" if prefix else declared.name
            if declared.array:
                inner: list[Step] = []
                if declared.constant:
                    inner.append(Step(NUMBER, ""))
                else:
                    self._flatten(declared.type, "", "", inner, depth + 1)
                steps.append(Step(ARRAY, name, inner=tuple(inner)))
            elif declared.constant:
                steps.append(Step(NUMBER, name))
            else:
                self._flatten(declared.type, name, declared.unit, steps, depth + 1)


def _string(cursor: Cursor) -> str:
    found = cursor.text()
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else ""


def _integer(text: str | None) -> int:
    try:
        return int(text or "-1")
    except ValueError as error:
        raise CorruptRecordError("the JFR recording's metadata have a number that is none") from error
