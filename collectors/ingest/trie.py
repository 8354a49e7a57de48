"""Pyroscope's two binary formats: ``trie``, stacks as text that share their beginnings, and ``tree``, one node a frame.

Both are nodes in depth-first pre-order from one root, each as: length of the name, name, value, number of children; the
numbers are LEB128. In a trie a stack is the names on the way joined as they are (``main;w``, ``ork``) and has a node's
value; in a tree the names are frames, the root has none, and a value is the frame's own. Source: what Pyroscope's
server reads (``transporttrie.IterateRaw``, ``tree.DeserializeNoDict``). Cost: one Python step for each node.
"""

from __future__ import annotations

from collectors.ingest.errors import RefusedError
from collectors.ingest.text import named, profile_of
from collectors.ingest.upload import Series, Upload
from collectors.scrapers.pprof_tables import MAX_SAMPLES
from streams.schema.stacks import MAX_STACK_BYTES

MAX_NODES = 2_000_000
MAX_TEXT = 64 << 20
"""Of all stacks together, in bytes: a few long names may lie on the way to many nodes."""


def trie(body: bytes, upload: Upload) -> list[Series]:
    """Decode a trie; none when the body is empty.

    Raises:
        RefusedError: 422, it is cut short or larger than a bound.
    """
    return _series(_walk(body, b""), upload) if body else []


def tree(body: bytes, upload: Upload) -> list[Series]:
    """Decode a tree.

    Raises:
        RefusedError: 422, it is cut short or larger than a bound.
    """
    return _series(_walk(body, b";"), upload)


def _series(counts: dict[bytes, int], upload: Upload) -> list[Series]:
    texts: dict[str, int] = {}
    for stack, value in counts.items():
        text = stack.decode("utf-8", "replace")
        texts[text] = texts.get(text, 0) + value
    return [named(upload, *profile_of(texts, upload))]


def _walk(body: bytes, separator: bytes) -> dict[bytes, int]:
    """Return {stack: value} of the nodes that have a value."""
    counts: dict[bytes, int] = {}
    label = bytearray()
    above: list[list[int]] = []  # of each open node: children to come, length of the label without its name
    at = nodes = size = 0
    try:
        while True:
            start, before = at, len(label)
            length, at = _number(body, at)
            name = body[at : at + length]
            at += length
            value, at = _number(body, at)
            children, at = _number(body, at)
            nodes += 1
            if nodes > MAX_NODES:
                raise RefusedError(422, "too_large", f"the profile has more than {MAX_NODES} nodes")
            if separator and (label or len(above) > 1):
                label += separator
            label += name
            if value:
                size += len(label)
                if len(counts) > MAX_SAMPLES or len(label) > MAX_STACK_BYTES or size > MAX_TEXT:
                    raise RefusedError(422, "too_large", "the profile's stacks are too many or too long")
                stack = bytes(label)
                counts[stack] = counts.get(stack, 0) + value
            if children:
                above.append([children, before])
                continue
            del label[before:]
            while above:
                above[-1][0] -= 1
                if above[-1][0]:
                    break
                del label[above.pop()[1] :]
            if not above:
                break
    except IndexError:
        raise RefusedError(422, "not_profile", f"the profile ends within the node at byte {start}") from None
    if at != len(body):
        raise RefusedError(422, "not_profile", f"{len(body) - at} bytes follow the profile's last node")
    return counts


def _number(body: bytes, at: int) -> tuple[int, int]:
    """Return (LEB128 number, where it ends); ``IndexError`` when it does not end.

    Raises:
        RefusedError: 422, it does not fit 63 bits.
    """
    byte = body[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value, shift = byte & 0x7F, 7
    while shift < 63:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise RefusedError(422, "not_profile", f"the number before byte {at} does not fit 63 bits")
