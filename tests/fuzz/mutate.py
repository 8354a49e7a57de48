"""Changes to an input, by a seeded generator."""

from __future__ import annotations

import random
import struct

NUMBERS = (0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)
TOKENS = (
    b"\n", b"=", b"(", b")", b"'", b"`", b"\\", b"/*", b"--", b" FORMAT ", b" VALUES ", b"INSERT INTO t ", b"SELECT ",
    b"Array(", b"Tuple(", b"LowCardinality(", b"String", b"UInt8", b"\xff\xff\xff\xff", b"\x1f\x8b", b"(\xb5/\xfd",
    b"-1", b"9223372036854775808", b'{"', b"}", b"null", b"\xed\xa0\x80", b"%00", b"&query=", b"\0" * 16,
)  # fmt: skip


def mutated(chance: random.Random, data: bytes, other: bytes, longest: int) -> bytes:
    """Return the data after one to six changes; ``other`` is spliced in now and then."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        _change(chance, out, other)
    return bytes(out[:longest])


def _change(chance: random.Random, out: bytearray, other: bytes) -> None:
    at = chance.randrange(len(out) + 1)
    how = chance.randrange(9)
    if how == 0 and out:
        out[at % len(out)] ^= 1 << chance.randrange(8)
    elif how == 1 and out:
        out[at % len(out)] = chance.randrange(256)
    elif how == 2:
        form = chance.choice(("<b", "<h", "<i", "<q", ">i", ">q"))
        size = struct.calcsize(form)
        bits = 8 * size
        number = (chance.choice(NUMBERS) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
        out[at : at + size] = struct.pack(form, number)
    elif how == 3:
        del out[at : at + chance.choice((1, 2, 4, 8, 64, 1024))]
    elif how == 4:
        out[at:at] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 2, 4, 16))))
    elif how == 5:
        out[at:at] = chance.choice(TOKENS)
    elif how == 6:
        size = chance.choice((4, 16, 128))
        source = chance.randrange(len(out) + 1)
        out[at:at] = out[source : source + size] * chance.choice((1, 1, 2, 50))
    elif how == 7:
        begin = chance.randrange(len(other) + 1)
        out[at : at + chance.choice((0, 8, 64))] = other[begin : begin + chance.choice((8, 64, 512))]
    else:
        del out[at:]
