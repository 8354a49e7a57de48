"""Stacks of interpreted programs in place of their interpreter's, at the CPU time that the kernel counted.

A sampled stack of a Python process names the interpreter, not the program. Whoever can read the program's own stacks
(``collectors.profile.python``) hands them over here, and the CPU profile spreads each such process's time of the
interval over them, by how often each was seen. The process's sum stays to the nanosecond what it was, so that nothing
counts twice; what is lost for these processes is what the interpreter, libraries and kernel did inside a function.

Light: the catalogue imports it, and ``--help`` shall not load NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Seen:
    """What one process did in an interval: distinct stacks as the contract writes them, and how often each was seen."""

    texts: list[str]
    counts: NDArray[np.int64]


class Source(Protocol):
    """Reads stacks of interpreted programs."""

    def exchange(self, pids: NDArray[np.uint64], used_ns: NDArray[np.int64], until_ns: int) -> Mapping[int, Seen]:
        """Return what was seen in the interval that ends now, and go on with these processes.

        Args:
            pids: processes that had CPU time in this interval, shape (n,).
            used_ns: how much, shape (n,).
            until_ns: when the next interval ends, Unix time.
        """


class Interpreted:
    """Where the CPU profile finds the source of one agent; there is none until one registers itself."""

    def __init__(self) -> None:
        self.source: Source | None = None

    def exchange(self, pids: NDArray[np.uint64], used_ns: NDArray[np.int64], until_ns: int) -> Mapping[int, Seen]:
        """Return what the source says of the interval that ends now; nothing when there is no source."""
        import numpy as np

        if self.source is None:
            return {}
        distinct, which = np.unique(pids, return_inverse=True)
        sums = np.zeros(len(distinct), np.int64)
        np.add.at(sums, which, used_ns)
        return self.source.exchange(distinct, sums, until_ns)


def spread(total: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return integers in proportion to ``counts`` (at least one above 0) whose sum is ``total``, each within one."""
    import numpy as np

    share = total / int(counts.sum())
    ends = np.rint(np.cumsum(counts) * share).astype(np.int64)
    ends[-1] = total
    parts: NDArray[np.int64] = np.diff(ends, prepend=0)
    return parts
