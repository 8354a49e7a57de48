"""Finds the events of one Java Flight Recorder chunk and reads those that are wanted as columns."""

from __future__ import annotations

from array import array
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from collectors.ingest.jfr_bytes import Bytes, Cursor, Positions, numbers_at
from collectors.ingest.jfr_metadata import NUMBER, TEXT, WIDTH, Header, Step
from collectors.ingest.jfr_pools import pass_over
from streams.schema.errors import CorruptRecordError

CHECKPOINT = 1
MAX_EVENTS = 1_000_000
MAX_SETTINGS = 10_000
_SHORTEST = 2

Column = NDArray[np.int64]


def index(data: bytes, chunk: Header, wanted: AbstractSet[int]) -> dict[int, tuple[Positions, Positions]]:
    """Return {event type: (where the fields begin, where the events end)} of the wanted types.

    One step for each event: where one begins is only known from the one before.

    Raises:
        CorruptRecordError: the events do not fill the chunk, or are too many.
    """
    found = {kind: (array("q"), array("q")) for kind in wanted}
    at, end, room = chunk.begin + chunk.size, chunk.end, MAX_EVENTS
    try:
        while at < end:
            room -= 1
            size = data[at]
            if size < 0x80:
                after = at + 1
            else:
                size, after = _long(data, at)
            kind = data[after]
            if kind < 0x80:
                after += 1
            else:
                kind, after = _long(data, after)
            if size < _SHORTEST or room < 0:
                break
            begin, at = at, at + size
            if kind in wanted:
                if not begin < after <= at <= end:
                    break
                found[kind][0].append(after)
                found[kind][1].append(at)
    except IndexError:
        at = end + 1
    if room < 0:
        raise CorruptRecordError(f"the JFR recording has more than {MAX_EVENTS} events")
    if at != end:
        raise CorruptRecordError("the JFR recording's events do not fill it: it is damaged or cut short")
    return {kind: (np.array(begins, np.int64), np.array(ends, np.int64)) for kind, (begins, ends) in found.items()}


def _long(data: bytes, at: int) -> tuple[int, int]:
    cursor = Cursor(data, at, len(data))
    return cursor.number(), cursor.at


def columns(
    data: bytes, view: Bytes, steps: tuple[Step, ...], at: Positions, end: Positions, wanted: AbstractSet[str]
) -> dict[str, Column]:
    """Return the wanted numbers of many events of one layout, shape (events,) each; what it lacks is absent.

    Raises:
        CorruptRecordError: an event ends inside a field.
    """
    found: dict[str, Column] = {}
    last = max((i for i, step in enumerate(steps) if step.name in wanted), default=-1)
    for step in steps[: last + 1]:
        if step.kind == NUMBER:
            value, at = numbers_at(view, at, end)
            if step.name in wanted:
                found[step.name] = value
        elif step.kind in WIDTH:
            at = at + WIDTH[step.kind]
            if np.any(at > end):
                raise CorruptRecordError("an event of the recording ends inside a number")
        else:
            # Texts and arrays stand before a wanted number in no event that is known.
            moved = at.copy()
            for i, (begin, stop) in enumerate(zip(at.tolist(), end.tolist(), strict=True)):
                cursor = Cursor(data, begin, stop)
                pass_over(cursor, (step,))
                moved[i] = cursor.at
            at = moved
    return found


def settings(
    data: bytes, steps: tuple[Step, ...], at: Positions, end: Positions, texts: dict[int, bytes]
) -> list[tuple[int, str, str]]:
    """Return (event type, name, value) of each ``jdk.ActiveSetting``, of the first ``MAX_SETTINGS``."""
    found = []
    for begin, stop in zip(at[:MAX_SETTINGS].tolist(), end[:MAX_SETTINGS].tolist(), strict=True):
        cursor = Cursor(data, begin, stop)
        row: dict[str, int | str] = {}
        for step in steps:
            if step.kind == NUMBER:
                row[step.name] = cursor.number()
            elif step.kind == TEXT:
                text = cursor.text()
                row[step.name] = (text if isinstance(text, bytes) else texts.get(text, b"")).decode("utf-8", "replace")
            else:
                pass_over(cursor, (step,))
        number = row.get("id", 0)
        found.append((number if isinstance(number, int) else 0, str(row.get("name", "")), str(row.get("value", ""))))
    return found
