"""A request's body: read within a bound, counted in a budget of the whole process, inflated within a bound."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from collectors.ingest.errors import RefusedError

_CHUNK = 1 << 20


class Source(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, or fewer at the end."""

    def readline(self, size: int, /) -> bytes:
        """Return one line, or so many bytes of it."""


class Share:
    """What one body holds of the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = 0

    def take(self, size: int) -> None:
        """Add bytes that the body is about to hold.

        Raises:
            RefusedError: 429, there is no room now.
        """
        self._budget.take(size, self.held)
        self.held += size


class Budget:
    """Bytes that bodies hold at this moment; beyond the bound new ones are refused, one alone never."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Hold a share for a block."""
        share = Share(self)
        try:
            yield share
        finally:
            with self._lock:
                self.held -= share.held

    def take(self, size: int, own: int) -> None:
        """Add bytes to a share that holds ``own``; as ``Share.take``."""
        with self._lock:
            if self.held > own and self.held + size > self._bound:
                raise RefusedError(429, "busy", "too many profiles are being received; come again", retry_after_s=1)
            self.held += size


def too_large(bound: int) -> RefusedError:
    """Return the refusal of a body beyond the bound."""
    return RefusedError(413, "too_large", f"request body too large: at most {bound} bytes are taken")


def length_of(headers: Mapping[str, str], bound: int) -> int | None:
    """Return the length that the headers announce; None for a chunked body.

    Raises:
        RefusedError: 413, it is beyond the bound; 400, it is no number or missing.
    """
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    text = headers.get("Content-Length", "0")
    if not (text.isascii() and text.isdigit()):
        raise RefusedError(400, "bad_request", "Content-Length is not a number")
    if len(text) > 18 or int(text) > bound:
        raise too_large(bound)
    return int(text)


def read(source: Source, length: int | None, bound: int, share: Share) -> bytes:
    """Return the body; the share has room for ``length``, chunks are added to it.

    Raises:
        RefusedError: 413, a chunked body is beyond the bound; 429, beyond the budget; 408, it ended early.
    """
    if length is not None:
        data = source.read(length)
        if len(data) != length:
            raise RefusedError(408, "cut", "failed to read request body: it ended early")
        return data
    out = bytearray()
    while True:
        line = source.readline(256)
        try:
            left = int(line.split(b";", 1)[0], 16)
        except ValueError:
            left = -1
        if left < 0:
            raise RefusedError(408, "cut", "failed to read request body: it ended early")
        if left == 0:
            while source.readline(8192) not in (b"\r\n", b"\n", b""):
                pass
            return bytes(out)
        if len(out) + left > bound:
            raise too_large(bound)
        share.take(left)
        piece = source.read(left)
        if len(piece) != left:
            raise RefusedError(408, "cut", "failed to read request body: it ended early")
        out += piece
        source.readline(8)


def inflate(data: bytes, encoding: str, bound: int) -> bytes:
    """Undo a ``Content-Encoding``.

    Raises:
        RefusedError: 413, it inflates beyond the bound; 400, it is damaged; 415, the encoding is unknown.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding != "gzip":
        raise RefusedError(415, "encoding", f"unknown Content-Encoding {encoding[:32]!r}; send gzip or identity")
    engine = zlib.decompressobj(wbits=31)
    out = bytearray()
    try:
        while not engine.eof:
            piece = engine.decompress(data, _CHUNK)
            data = engine.unconsumed_tail
            if not piece and not data:
                break
            out += piece
            if len(out) > bound:
                raise too_large(bound)
    except zlib.error as error:
        raise RefusedError(400, "encoding", f"the body's gzip data are damaged: {error}") from error
    if not engine.eof:
        raise RefusedError(400, "encoding", "the body's gzip data are cut short")
    return bytes(out)
