"""Writes a profile as pprof (google/pprof ``proto/profile.proto``), gzipped, as every pprof tool reads it.

One sample type: the profile's own type and unit, so that sums stay whole numbers. One location a distinct frame.
"""

from __future__ import annotations

import gzip

import numpy as np
from numpy.typing import NDArray

from dashboards.export.stacks import Stacks

_SAMPLE_TYPE, _SAMPLE, _LOCATION, _FUNCTION, _STRING = 1, 2, 4, 5, 6
_TIME, _DURATION, _PERIOD_TYPE, _PERIOD, _DEFAULT = 9, 10, 11, 12, 14


def encode(stacks: Stacks) -> bytes:
    """Return the profile's bytes; cost: about 2 microseconds a stack and a tenth of that a frame."""
    texts: dict[str, int] = {"": 0}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    kind = _number(1, text(stacks.type)) + _number(2, text(stacks.unit))
    parts = [_message(_SAMPLE_TYPE, kind)]
    functions: dict[tuple[str, str], int] = {}
    for at, (name, file, line) in enumerate(zip(stacks.names, stacks.files, stacks.lines.tolist(), strict=True), 1):
        number = functions.setdefault((name, file), len(functions) + 1)
        parts.append(_message(_LOCATION, _number(1, at) + _message(4, _number(1, number) + _number(2, line))))
    for (name, file), number in functions.items():
        named = text(name)
        fields = _number(1, number) + _number(2, named) + _number(3, named) + _number(4, text(file))
        parts.append(_message(_FUNCTION, fields))
    parts += _samples(stacks)
    parts += [_message(_STRING, value.encode("utf-8", "replace")) for value in texts]
    begin = round(stacks.begin.timestamp() * 1e9)
    parts += [
        _number(_TIME, begin),
        _number(_DURATION, round(stacks.end.timestamp() * 1e9) - begin),
        _number(_DEFAULT, texts[stacks.type]),
    ]
    if stacks.period > 0:
        parts += [_message(_PERIOD_TYPE, kind), _number(_PERIOD, stacks.period)]
    return gzip.compress(b"".join(parts), compresslevel=6, mtime=0)


def _samples(stacks: Stacks) -> list[bytes]:
    """Return one message a stack, its locations leaf first."""
    length = np.diff(stacks.start)
    # Each stack backwards: the place of its last frame, less how far a frame is into the stack.
    inside = np.arange(len(stacks.frame)) - np.repeat(stacks.start[:-1], length)
    leaf_first = stacks.frame[np.repeat(stacks.start[1:] - 1, length) - inside]
    data, at = _varints((leaf_first + 1).astype(np.uint64))
    values, value_at = _varints(stacks.value.view(np.uint64))
    cut, value_cut = at[stacks.start].tolist(), value_at.tolist()
    samples = []
    for i in range(len(stacks.value)):  # over distinct stacks; what is inside them was encoded as columns
        locations = data[cut[i] : cut[i + 1]]
        fields = _message(1, locations) + _message(2, values[value_cut[i] : value_cut[i + 1]])
        samples.append(_message(_SAMPLE, fields))
    return samples


def _varints(numbers: NDArray[np.uint64]) -> tuple[bytes, NDArray[np.int64]]:
    """Return numbers as varints one after another, and where each begins, shape (numbers + 1,)."""
    shifts = np.arange(0, 70, 7, dtype=np.uint64)
    length = np.ones(len(numbers), np.int64)
    for shift in shifts[1:]:
        length += numbers >> shift > 0
    columns = np.arange(10)
    digits = ((numbers[:, None] >> shifts[None, :]) & np.uint64(0x7F)).astype(np.uint8)
    digits |= np.where(columns[None, :] < length[:, None] - 1, 0x80, 0).astype(np.uint8)
    data = digits[columns[None, :] < length[:, None]].tobytes()
    return data, np.concatenate([[0], np.cumsum(length)])


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data
