"""What the modules with compiled code share: how they are compiled, and how arrays are handed to them."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Made_co = TypeVar("Made_co", covariant=True)


class Compile(Protocol[Made_co]):
    """Compiles for one set of arguments."""

    def __call__(self, *, cache: bool) -> Made_co:
        """Return the machine code; ``cache``: keep it for the next process, or take what an earlier one kept."""


def made_by(compiled: Compile[Made_co]) -> Made_co:
    """Return the machine code: from numba's cache where that can be used, else compiled for this process alone."""
    try:
        return compiled(cache=True)
    except Exception:  # noqa: BLE001 - whatever ails the cache, it goes without one, or is raised again
        return compiled(cache=False)


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written: writable arrays and others are two types to the compiler."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
