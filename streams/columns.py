"""Column helpers of the window code: growing arrays, row groups from dictionary columns, dictionary columns back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = tuple[str, ...]


class Growing:
    """A one-dimensional array that grows by doubling; ``view`` is the used part."""

    def __init__(self, dtype: type, capacity: int = 1024) -> None:
        self._data: NDArray[Any] = np.zeros(capacity, dtype)
        self.size = 0

    @property
    def view(self) -> NDArray[Any]:
        """Return the used part, without a copy; valid until the next ``extend``."""
        return self._data[: self.size]

    def extend(self, values: NDArray[Any] | Sequence[int]) -> None:
        """Append values."""
        need = self.size + len(values)
        if need > len(self._data):
            self._data = grown(self._data, need)
        self._data[self.size : need] = values
        self.size = need


def grown(array: NDArray[Any], need: int, fill: int = 0) -> NDArray[Any]:
    """Return the array with room for at least ``need`` elements, at least doubled; new ones hold ``fill``."""
    if need <= len(array):
        return array
    larger = np.full(max(need, 2 * len(array)), fill, array.dtype) if fill else np.zeros(
        max(need, 2 * len(array)), array.dtype
    )  # fmt: skip
    larger[: len(array)] = array
    return larger


def group_rows(batch: pa.RecordBatch, names: Sequence[str], prefix: Key) -> tuple[list[Key], NDArray[np.int64]]:
    """Return (distinct keys, each row's index among them) over dictionary columns; ``prefix`` leads each key.

    Dictionaries that repeat an entry may give a key twice: callers look keys up, so the rows still meet.
    """
    rows = batch.num_rows
    code = np.zeros(rows, np.int64)
    span = 1
    columns = [batch.column(name) for name in names]
    for column in columns:
        size = len(column.dictionary)
        if span > (1 << 62) // max(size, 1):
            # The product of the dictionaries' sizes would overflow: renumber what is there.
            code = np.unique(code, return_inverse=True)[1].astype(np.int64)
            span = rows + 1
        if size > 1:
            code = code * size + column.indices.to_numpy(zero_copy_only=False)
            span *= size
    if span <= 4 * rows + 1024:
        present = np.flatnonzero(np.bincount(code, minlength=1))
        lookup = np.zeros(span, np.int64)
        lookup[present] = np.arange(len(present))
        inverse = lookup[code]
        first = np.zeros(len(present), np.int64)
        first[inverse[::-1]] = np.arange(rows - 1, -1, -1)
    else:
        _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    picked = pa.array(first)
    values = [column.take(picked).dictionary_decode().to_pylist() for column in columns]
    return [(*prefix, *(text or "" for text in key)) for key in zip(*values, strict=True)], inverse


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return the distinct values, ascending. Sorting beats NumPy's hashing ``unique`` tenfold at these sizes."""
    ordered = np.sort(values)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if len(ordered) else ordered


def sums_by(codes: NDArray[np.int64], values: NDArray[np.int64], span: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (distinct codes ascending, exact integer sum of the values of each); codes are in 0 .. span-1."""
    if span <= 32 * len(codes) + 1024:
        sums, present = np.zeros(span, np.int64), np.zeros(span, np.bool_)
        np.add.at(sums, codes, values)
        present[codes] = True
        used = np.flatnonzero(present)
        return used, sums[used]
    used, inverse = np.unique(codes, return_inverse=True)
    sums = np.zeros(len(used), np.int64)
    np.add.at(sums, inverse, values)
    return used, sums


def text_column(texts: Sequence[str], indices: NDArray[np.int64]) -> pa.DictionaryArray:
    """Return the dictionary column of ``texts[indices]``; its dictionary holds each used text once."""
    present = np.zeros(len(texts), np.bool_)
    present[indices] = True
    used = np.flatnonzero(present)
    encoded = pa.array([texts[i] for i in used.tolist()], pa.string()).dictionary_encode()
    codes = np.zeros(len(texts), np.int32)
    codes[used] = encoded.indices.to_numpy(zero_copy_only=False)
    return pa.DictionaryArray.from_arrays(pa.array(codes[indices]), encoded.dictionary)


def constant(value: int, rows: int, kind: pa.DataType) -> pa.Array:
    """Return a column of one number."""
    return pa.array(np.full(rows, value), kind)
