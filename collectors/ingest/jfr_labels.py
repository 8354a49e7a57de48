"""The labels that Pyroscope's Java agent sends beside a recording: ``LabelsSnapshot``, context number to labels.

Source: the agent's ``jfr_labels.proto``.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from collectors.scrapers import wire
from streams.schema.errors import CorruptRecordError

MAX_CONTEXTS = 100_000
MAX_LABELS = 64
_NONE = (array("q"), array("q"))


def contexts(data: bytes) -> dict[int, dict[str, str]]:
    """Return {context number: {label: value}}.

    Raises:
        CorruptRecordError: these bytes are no such message, or hold too many labels.
    """
    view = np.frombuffer(data, np.uint8)
    top = wire.top_level(data)
    keys, begin, end = _map(view, *_ranges(top, 1))
    texts, text_begin, text_end = _map(view, *_ranges(top, 2))
    if len(keys) > MAX_CONTEXTS or len(texts) > MAX_CONTEXTS:
        raise CorruptRecordError(f"the labels have more than {MAX_CONTEXTS} contexts or texts")
    strings = {
        key: data[at:to].decode("utf-8", "replace")
        for key, at, to in zip(texts.tolist(), text_begin.tolist(), text_end.tolist(), strict=True)
    }
    pairs = wire.walk(view, begin, end).only(1)
    if np.any(pairs.wire != wire.LENGTH):
        raise CorruptRecordError("the labels have a field of the wrong wire type")
    fields = wire.walk(view, pairs.begin, pairs.end)
    names, values = fields.scalar(1, len(pairs.owner)), fields.scalar(2, len(pairs.owner))
    found: dict[int, dict[str, str]] = {key: {} for key in keys.tolist()}
    for owner, name, value in zip(keys[pairs.owner].tolist(), names.tolist(), values.tolist(), strict=True):
        if name in strings and value in strings and len(found[owner]) < MAX_LABELS:
            found[owner][strings[name]] = strings[value]
    return found


def _ranges(top: dict[int, tuple[array[int], array[int]]], number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    begins, ends = top.get(number, _NONE)
    begin, end = np.array(begins, np.int64), np.array(ends, np.int64)
    if np.any(end < 0):
        raise CorruptRecordError("the labels have a field of the wrong wire type")
    return begin, end


def _map(
    view: wire.Bytes, begin: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (keys, begin and end of the values) of a map's entries; a value that is left out is empty."""
    entries = wire.walk(view, begin, end)
    values = entries.only(2)
    if np.any(values.wire != wire.LENGTH):
        raise CorruptRecordError("the labels have a field of the wrong wire type")
    starts, stops = np.zeros(len(begin), np.int64), np.zeros(len(begin), np.int64)
    starts[values.owner], stops[values.owner] = values.begin, values.end
    return entries.scalar(1, len(begin)), starts, stops
