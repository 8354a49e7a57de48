"""A table from (group, function) to a number, in pages: one look-up is two array reads, whatever is in it.

A hash table would do with less memory, but NumPy has none, and one look-up in a ``dict`` costs as much as ten here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITS = 5
_SIZE = 1 << _BITS
_ABSENT = -1


class PagedTable:
    """Numbers of (group, function) pairs; both are dense from 0.

    Memory: 4 bytes for each group and ``_SIZE`` functions, and 4 bytes times ``_SIZE`` for each page in use.
    """

    def __init__(self) -> None:
        self._pages = np.full((64, _SIZE), _ABSENT, np.int32)
        self._used = 0
        self._directory = np.full((8, 32), _ABSENT, np.int32)

    @property
    def cells(self) -> int:
        """Return how many 4-byte cells the table has."""
        return self._pages.size + self._directory.size

    def get(self, groups: NDArray[np.int64], functions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each pair, -1 where there is none."""
        if not len(groups):
            return np.zeros(0, np.int64)
        self._make_room(int(groups.max()), int(functions.max()) >> _BITS)
        page = self._directory[groups, functions >> _BITS]
        found: NDArray[np.int64] = self._pages[page, functions & (_SIZE - 1)].astype(np.int64)
        found[page == _ABSENT] = _ABSENT  # they have read the last page
        return found

    def put(self, groups: NDArray[np.int64], functions: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Set the numbers of pairs that ``get`` has looked for."""
        at = functions >> _BITS
        missing = self._directory[groups, at] == _ABSENT
        if missing.any():
            width = self._directory.shape[1]
            new = np.unique(groups[missing] * width + at[missing])
            self._pages = _rows(self._pages, self._used + len(new))
            self._directory[new // width, new % width] = np.arange(self._used, self._used + len(new))
            self._used += len(new)
        self._pages[self._directory[groups, at], functions & (_SIZE - 1)] = numbers

    def _make_room(self, group: int, page: int) -> None:
        rows, width = self._directory.shape
        if page >= width:
            wider = np.full((rows, max(page + 1, 2 * width)), _ABSENT, np.int32)
            wider[:, :width] = self._directory
            self._directory = wider
        self._directory = _rows(self._directory, group + 1)


def _rows(table: NDArray[np.int32], need: int) -> NDArray[np.int32]:
    """Return the table with at least ``need`` rows, at least doubled when it grows."""
    if need <= len(table):
        return table
    larger = np.full((max(need, 2 * len(table)), table.shape[1]), _ABSENT, np.int32)
    larger[: len(table)] = table
    return larger
