"""What the modules with compiled code share: how they are compiled, and how arrays are handed to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int = Any
"""A machine's integer, signed or not, as numba takes it from its arithmetic."""
Function = TypeVar("Function", bound=Callable[..., object])
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


def part(function: Function) -> Function:
    """Paste the function in where it is called: a call would cost more. Compiling takes longer with each place.

    It stands in the file of those that call it: numba's cache goes by the file.
    """
    return njit(nogil=True, boundscheck=True, inline="always")(function)  # type: ignore[no-any-return]


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written: writable arrays and others are two types to the compiler."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
