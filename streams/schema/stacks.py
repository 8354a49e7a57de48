"""How a stack is written: frames as text, and a 64-bit id over them.

``frames`` holds the frames root first, separated by a line feed; a frame is ``function TAB file TAB line``. Separators
cannot stand inside a field, so two different stacks never have one text; the id is BLAKE2b-64 of that text (RFC 7693).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

FRAME_SEPARATOR = "\n"
FIELD_SEPARATOR = "\t"
MAX_FRAMES = 1024
MAX_FIELD = 1024
MAX_STACK_BYTES = 1 << 20
"""Of a stack's text in UTF-8; a thousand frames of a kilobyte each."""
UNKNOWN = "[unknown]"

_CLEAN = dict.fromkeys(range(32), " ") | {127: " "}


class Frame(NamedTuple):
    """One frame: function name, source file or module path ("" if unknown), line (0 if unknown)."""

    function: str
    file: str = ""
    line: int = 0


def frame_text(function: str, file: str = "", line: int = 0) -> str:
    """Return one frame as text, control characters replaced and overlong names cut."""
    name = function[:MAX_FIELD].translate(_CLEAN) or UNKNOWN
    return f"{name}{FIELD_SEPARATOR}{file[:MAX_FIELD].translate(_CLEAN)}{FIELD_SEPARATOR}{max(0, line)}"


def join(frames: list[str]) -> str:
    """Join frame texts (root first); beyond a bound the leaf-most are kept under a ``[truncated]`` root."""
    if len(frames) > MAX_FRAMES:
        frames = [frame_text("[truncated]"), *frames[-(MAX_FRAMES - 1) :]]
    text = FRAME_SEPARATOR.join(frames)
    if len(text) > MAX_STACK_BYTES // 4 and len(text.encode("utf-8", "replace")) > MAX_STACK_BYTES:
        return join([frame_text("[truncated]"), *frames[len(frames) // 2 + 1 :]])
    return text


def stack_id(frames: str) -> int:
    """Return the 64-bit id of a stack's text."""
    return int.from_bytes(blake2b(frames.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def split(frames: str | Sequence[str]) -> list[Frame]:
    """Return the frames of one stack, root first, of its text or of its frames' texts. For display."""
    result = []
    for text in frames.split(FRAME_SEPARATOR) if isinstance(frames, str) else frames:
        function, file, line = text.split(FIELD_SEPARATOR)
        result.append(Frame(function, file, int(line)))
    return result
