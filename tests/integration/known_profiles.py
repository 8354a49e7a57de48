"""Profiles in pprof's format with sums that are known."""

from __future__ import annotations

import gzip
from collections.abc import Sequence


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def piece(field: int, body: bytes | str) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    return varint(field << 3 | 2) + varint(len(body)) + body


def packed(field: int, values: Sequence[int]) -> bytes:
    return piece(field, b"".join(map(varint, values)))


def pprof(
    samples: Sequence[tuple[Sequence[str], Sequence[int]]],
    types: Sequence[tuple[str, str]] = (("cpu", "nanoseconds"),),
    *,
    time_ns: int = 0,
    duration_ns: int = 0,
    period: int = 0,
    period_type: tuple[str, str] = ("cpu", "nanoseconds"),
    compress: bool = True,
) -> bytes:
    """Return a profile; a sample is (frames root first, values). Functions are named, lines are their numbers."""
    strings: dict[str, int] = {"": 0}

    def text(value: str) -> int:
        return strings.setdefault(value, len(strings))

    functions: dict[str, int] = {}
    body = [piece(1, number(1, text(kind)) + number(2, text(unit))) for kind, unit in types]
    for stack, values in samples:
        ids = [functions.setdefault(name, len(functions) + 1) for name in stack]
        body.append(piece(2, packed(1, ids[::-1]) + packed(2, values)))
    for name, at in functions.items():
        body.append(piece(4, number(1, at) + piece(4, number(1, at) + number(2, at))))
        body.append(piece(5, number(1, at) + number(2, text(name)) + number(4, text(f"{name}.py"))))
    body += [number(9, time_ns), number(10, duration_ns)]
    body.append(piece(11, number(1, text(period_type[0])) + number(2, text(period_type[1]))))
    body.append(number(12, period))
    body += [piece(6, value) for value in strings]
    data = b"".join(body)
    return gzip.compress(data, 1) if compress else data


def push(series: Sequence[tuple[dict[str, str], Sequence[bytes]]]) -> bytes:
    """Return a PushRequest in protobuf: (labels, profiles) of each series."""
    return b"".join(
        piece(
            1,
            b"".join(piece(1, piece(1, name) + piece(2, value)) for name, value in labels.items())
            + b"".join(piece(2, piece(1, profile) + piece(2, "id")) for profile in profiles),
        )
        for labels, profiles in series
    )


def form(**fields: bytes) -> tuple[bytes, str]:
    """Return (body, content type) of a multipart form."""
    mark = "xYzZyX"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in fields.items()
    ]
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"
