"""How the rows of one kind of gadget are added up and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class View:
    """``schema`` is the contract's name of the rows; ``merge`` adds up rows of many intervals; ``show`` prints that.

    What ``merge`` returns it also takes.
    """

    schema: str
    merge: Callable[[Sequence[pa.RecordBatch]], pa.RecordBatch | None]
    show: Callable[[pa.RecordBatch], None]
