"""The constant pools of one Java Flight Recorder chunk, as columns.

Pools of numbers (classes, methods) and of stack traces are read in bulk. Texts are read one by one: there is one for
each distinct name. Sources: jdk.jfr.internal.consumer.ChunkParser, ConstantMap (OpenJDK).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collectors.ingest.jfr_bytes import Bytes, Cursor, numbers
from collectors.ingest.jfr_metadata import ARRAY, NUMBER, TEXT, WIDTH, Metadata, Step
from streams.schema.errors import CorruptRecordError

MAX_POOLS = 20_000
MAX_CONSTANTS = 1_000_000
MAX_FRAMES = 2_000_000
_WINDOW = 64

Column = NDArray[np.int64]


@dataclass(slots=True)
class Traces:
    """Stack traces: ``length`` frames each, which stand one after the other in ``frames`` (leaf first)."""

    ids: Column
    length: Column
    frames: dict[str, Column]


@dataclass(slots=True)
class Pools:
    """What the events of a chunk refer to. ``rows``: for each class of numbers, its ids and fields as columns."""

    texts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Column]]] = field(default_factory=dict)
    traces: list[Traces] = field(default_factory=list)
    pools: int = 0
    constants: int = 0
    frames: int = 0

    def table(self, name: str) -> dict[str, Column]:
        """Return the columns of a class of numbers, ``{}`` when the chunk has none; ``""`` is the ids."""
        return _concatenated(self.rows.get(name, []))

    def stacks(self) -> Traces:
        """Return all stack traces."""
        none = np.zeros(0, np.int64)
        if not self.traces:
            return Traces(none, none, {})
        return Traces(
            np.concatenate([part.ids for part in self.traces]),
            np.concatenate([part.length for part in self.traces]),
            _concatenated([part.frames for part in self.traces]),
        )


def _concatenated(parts: list[dict[str, Column]]) -> dict[str, Column]:
    if any(part.keys() != parts[0].keys() for part in parts):
        raise CorruptRecordError("the JFR recording declares one class in two ways")
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}


class Reader:
    """Reads checkpoint events into ``pools``."""

    def __init__(self, data: bytes, view: Bytes, metadata: Metadata) -> None:
        self._data = data
        self._view = view
        self._metadata = metadata
        self._layouts: dict[int, tuple[Step, ...]] = {}
        self.pools = Pools()

    def checkpoint(self, at: int, end: int) -> None:
        """Read the pools of one checkpoint event, whose fields begin at ``at``.

        Raises:
            CorruptRecordError: damaged, or one of too many.
        """
        cursor = Cursor(self._data, at, end)
        for _ in range(3):
            cursor.number()  # start, duration, distance to the checkpoint before
        cursor.byte()  # what made it
        for _ in range(cursor.count()):
            self.pools.pools += 1
            if self.pools.pools > MAX_POOLS:
                raise CorruptRecordError(f"the JFR recording has more than {MAX_POOLS} constant pools")
            number = cursor.number()
            if number not in self._layouts:
                self._layouts[number] = self._metadata.layout(number)
            self._pool(cursor, self._metadata.kinds[number].name, self._layouts[number])

    def _pool(self, cursor: Cursor, name: str, steps: tuple[Step, ...]) -> None:
        count = cursor.count()
        self.pools.constants += count
        if self.pools.constants > MAX_CONSTANTS:
            raise CorruptRecordError(f"the JFR recording has more than {MAX_CONSTANTS} constants")
        kinds = {step.kind for step in steps}
        if count == 0:
            return
        if kinds <= {NUMBER}:
            found = self._take(cursor, count * (1 + len(steps))).reshape(count, 1 + len(steps))
            names = ("", *(step.name for step in steps))
            self.pools.rows.setdefault(name, []).append({key: found[:, i] for i, key in enumerate(names)})
        elif name == "jdk.types.StackTrace":
            self._stack_traces(cursor, count, steps)
        elif [step.kind for step in steps] == [TEXT]:
            texts = self.pools.texts.setdefault(name, {})
            for _ in range(count):
                number = cursor.number()
                text = cursor.text()
                texts[number] = text if isinstance(text, bytes) else b""
        else:
            for _ in range(count):
                cursor.number()
                pass_over(cursor, steps)

    def _take(self, cursor: Cursor, count: int) -> Column:
        """Return the next integers, ``count`` of them, and move on."""
        if count > cursor.end - cursor.at:
            raise CorruptRecordError("the JFR recording is cut short, or a count in it is wrong")
        # Most numbers are short: what is looked at grows until it holds them all.
        size = count * 3
        while True:
            values, after = numbers(self._view[cursor.at : min(cursor.end, cursor.at + size)])
            if len(values) >= count:
                cursor.at += int(after[count - 1]) if count else 0
                return values[:count]
            if cursor.at + size >= cursor.end:
                raise CorruptRecordError("the JFR recording is cut short, or a count in it is wrong")
            size *= 4

    def _stack_traces(self, cursor: Cursor, count: int, steps: tuple[Step, ...]) -> None:
        arrays = [i for i, step in enumerate(steps) if step.kind == ARRAY]
        plain = {step.kind for step in steps} <= {NUMBER, ARRAY}
        if len(arrays) != 1 or not plain or {step.kind for step in steps[arrays[0]].inner} != {NUMBER}:
            raise CorruptRecordError("the JFR recording's stack traces have a layout that is not known")
        before, after, inner = 1 + arrays[0], len(steps) - arrays[0] - 1, steps[arrays[0]].inner
        width = len(inner)
        size = count * _WINDOW
        while True:
            values, ends = numbers(self._view[cursor.at : min(cursor.end, cursor.at + size)])
            ids, begins, lengths, at = self._split(values, count, before, width, after)
            if len(ids) == count:
                break
            if cursor.at + size >= cursor.end:
                raise CorruptRecordError("the JFR recording is cut short, or a count in it is wrong")
            size *= 4
        cursor.at += int(ends[at - 1])
        length = np.array(lengths, np.int64)
        total = int(length.sum())
        self.pools.frames += total
        if self.pools.frames > MAX_FRAMES:
            raise CorruptRecordError(f"the JFR recording's stack traces have more than {MAX_FRAMES} frames")
        # Where each frame's first number stands.
        stops = np.cumsum(length)
        place = np.arange(total) - np.repeat(stops - length, length)
        first = np.repeat(np.array(begins, np.int64), length) + place * width
        frames = {step.name: values[first + i] for i, step in enumerate(inner)}
        self.pools.traces.append(Traces(np.array(ids, np.int64), length, frames))

    @staticmethod
    def _split(
        values: Column, count: int, before: int, width: int, after: int
    ) -> tuple[list[int], list[int], list[int], int]:
        """Return (ids, where the frames begin, how many) of the whole traces in ``values``, and where they end."""
        ids, begins, lengths, at = [], [], [], 0
        for _ in range(count):
            if at + before >= len(values):
                break
            length = int(values[at + before])
            end = at + before + 1 + length * width + after
            if length < 0 or end > len(values):
                break
            ids.append(int(values[at]))
            begins.append(at + before + 1)
            lengths.append(length)
            at = end
        return ids, begins, lengths, at


def pass_over(cursor: Cursor, steps: tuple[Step, ...]) -> None:
    """Move past one value of a layout.

    Raises:
        CorruptRecordError: it is cut short.
    """
    for step in steps:
        if step.kind == NUMBER:
            cursor.number()
        elif step.kind == TEXT:
            cursor.text()
        elif step.kind == ARRAY:
            count = cursor.count()
            for _ in range(count if step.inner else 0):
                pass_over(cursor, step.inner)
        else:
            cursor.skip(WIDTH[step.kind])
