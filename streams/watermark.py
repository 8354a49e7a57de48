"""Which window a time belongs to, when a window closes, and the snapshot that survives a crash.

Integer nanoseconds of event time throughout; the wall clock is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from streams.schema.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECOND = 1_000_000_000
BEFORE_ALL = -(1 << 63)
_FORMAT = "w1"


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """Tumbling windows of event time. Changing any but ``grace_s`` needs a new group: published states carry it."""

    window_s: int = 60
    grace_s: int = 30
    max_functions: int = 4096

    def __post_init__(self) -> None:
        if self.window_s < 1 or self.grace_s < 0 or self.max_functions < 1:
            raise SettingsError("windows: window_s and max_functions are at least 1, grace_s at least 0")

    @property
    def window_ns(self) -> int:
        """Return the length of a window in nanoseconds."""
        return self.window_s * SECOND

    @property
    def grace_ns(self) -> int:
        """Return how long after its end a window stays open, in nanoseconds of event time."""
        return self.grace_s * SECOND


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one partition's windows knew before the message ``next_offset``.

    ``watermark_ns`` is the greatest (clamped) interval end seen; windows that end at or before ``closed_ns`` are closed
    and published for good. ``closed_ns`` never falls, so that another grace reopens nothing.
    """

    next_offset: int = 0
    watermark_ns: int = BEFORE_ALL
    closed_ns: int = BEFORE_ALL

    def after(self, offset: int, end_ns: int, grace_ns: int) -> Snapshot:
        """Return the snapshot after the message at ``offset``, whose interval ended at ``end_ns``."""
        watermark = max(self.watermark_ns, end_ns)
        return Snapshot(offset + 1, watermark, max(self.closed_ns, watermark - grace_ns))

    def pack(self, settings: WindowSettings) -> str:
        """Return the text that is stored as metadata of the offset commit."""
        numbers = (self.next_offset, self.watermark_ns, self.closed_ns, settings.window_s, settings.max_functions)
        return " ".join((_FORMAT, *map(str, numbers)))

    @classmethod
    def unpack(cls, text: str, offset: int, settings: WindowSettings) -> Snapshot:
        """Read ``pack``'s text back; an empty text (no commit of ours) begins anew at ``offset``.

        Raises:
            SettingsError: it was written by another version, or with settings that the published states rest on.
        """
        if not text:
            return replace(cls(), next_offset=offset)
        try:
            name, *rest = text.split(" ")
            next_offset, watermark, closed, window_s, max_functions = map(int, rest)
        except ValueError:
            name = ""
        if name != _FORMAT:
            raise SettingsError(f"the group's commit holds {text[:40]!r}, not a window snapshot; use another group")
        if (window_s, max_functions) != (settings.window_s, settings.max_functions):
            raise SettingsError(
                f"this group published windows with window_s={window_s}, max_functions={max_functions}; keep these "
                "settings, or give the worker another group and replay into fresh tables"
            )
        return cls(next_offset, watermark, closed)


def starts(time_ns: NDArray[np.int64], window_ns: int) -> NDArray[np.int64]:
    """Return the start of each time's window: the greatest multiple of ``window_ns`` that is not after it."""
    return time_ns - np.mod(time_ns, window_ns)
