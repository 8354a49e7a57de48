"""One GET over HTTP/1.1 or HTTPS, bounded in time, in bytes, and in where it goes.

Not a general client: no cookies, no compression, no connection kept, no proxy. It exists because a scrape must be
cancelled at once when the agent stops, must end at its deadline however slowly a target drips, and must not take in
more than its bound, and because the agent's dependencies are to stay few.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from runtime.settings import Secret
from streams.schema.errors import TargetUnavailableError

SMALL_BODY = 256 * 1024
_MAX_HEADERS = 100
_MAX_LINE = 16 * 1024
_MAX_REDIRECTS = 3
_READ = 64 * 1024
_EXCERPT = 200
_EXCERPT_READ = 4096
_PATH = "%/:=&?~+!$,;'@()*[]"
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_HEX = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Access:
    """How to be let in, and whom to believe: see the fields of the same names in ``ScrapeTarget``."""

    authorization: Secret = Secret("")
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """Return the TLS context; a file that has changed is read anew, so a renewed certificate needs no restart.

        Raises:
            TargetUnavailableError: a file cannot be used.
        """
        files = (self.ca_file, self.cert_file, self.key_file)
        try:
            changed = tuple(Path(file).stat().st_mtime_ns if file else 0 for file in files)
            return _context(*files, self.insecure, changed)
        except (OSError, ssl.SSLError) as error:
            raise TargetUnavailableError(f"certificate files: {error}", "tls") from error


@lru_cache(maxsize=256)
def _context(ca_file: str, cert_file: str, key_file: str, insecure: bool, _changed: tuple[int, ...]) -> ssl.SSLContext:
    # Reading the system's certificates takes some 20 ms, too long for every scrape.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None)
    return context


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    headers: dict[str, str] = field(default_factory=dict)


async def fetch(
    url: str, access: Access, timeout_s: float, bound: int, grow: Callable[[], Awaitable[object]] | None = None
) -> bytes:
    """Return the body of a 200 answer.

    Args:
        url: ``http`` or ``https``, without user or password.
        access: authorisation and certificates.
        timeout_s: for everything together: name, connection, answer.
        bound: most bytes of the body that are read.
        grow: awaited once before more than ``SMALL_BODY`` bytes are kept, so that the caller can bound their sum.

    Raises:
        TargetUnavailableError: no such answer; its text holds no secret, its ``reason`` is ``connect``, ``tls``,
            ``timeout``, ``protocol``, ``redirect``, ``status``, ``not_profile`` or ``too_large``.
    """
    with explained(timeout_s):
        async with asyncio.timeout(timeout_s):
            return await _follow(url, access, bound, grow)


async def lines(url: str, access: Access, timeout_s: float, idle_s: float, bound: int) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a 200 answer as they come, for as long as it lasts; redirects are not followed.

    Who takes the lines must not await anything else meanwhile: the time limit is that of the task.

    Args:
        url: as for ``fetch``.
        access: authorisation and certificates.
        timeout_s: until the answer begins.
        idle_s: without any byte; then it is taken for dead.
        bound: most bytes of one line.

    Raises:
        TargetUnavailableError: as ``fetch``; ``timeout`` also when nothing came for ``idle_s``.
    """
    begun = False
    with explained(timeout_s):
        try:
            async with (
                asyncio.timeout(timeout_s) as limit,
                _asked(urlsplit(url), access, lasting=True) as (reader, head),
            ):
                if head.status != 200:
                    raise await _refused(reader, head, access)
                begun, rest = True, bytearray()
                limit.reschedule(asyncio.get_running_loop().time() + idle_s)
                async for piece in _pieces(reader, head, 1 << 62):
                    limit.reschedule(asyncio.get_running_loop().time() + idle_s)
                    *whole, last = piece.split(b"\n")
                    for part in whole:
                        yield bytes(rest + part)
                        rest.clear()
                    rest += last
                    if len(rest) > bound:
                        raise _too_large(bound)
        except TimeoutError:
            if not begun:
                raise
            raise TargetUnavailableError(f"nothing came for {idle_s:g} s", "timeout") from None


@contextlib.contextmanager
def explained(timeout_s: float) -> Iterator[None]:
    """Raise whatever a connection fails with as a ``TargetUnavailableError`` in words for a person."""
    try:
        yield
    except TimeoutError:
        raise TargetUnavailableError(f"no whole answer within {timeout_s:g} s", "timeout") from None
    except ssl.SSLCertVerificationError as error:
        raise TargetUnavailableError(f"its certificate is not accepted: {error.verify_message}", "tls") from error
    except ssl.SSLError as error:
        raise TargetUnavailableError(f"TLS failed: {error.reason or error}", "tls") from error
    except asyncio.IncompleteReadError as error:
        raise TargetUnavailableError("the answer ends too early", "protocol") from error
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise TargetUnavailableError("the answer is not HTTP", "protocol") from error
    except OSError as error:
        number = error.errno or 0  # below zero: a name could not be resolved
        known = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise TargetUnavailableError(f"no connection: {known}", "connect") from error


@contextlib.asynccontextmanager
async def _asked(
    parts: SplitResult, access: Access, *, lasting: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, _Head]]:
    """Send the request; yields the head of the answer, and where its body is read from.

    A ``lasting`` connection on which nothing is sent learns within a minute that the other machine is gone.
    """
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=access.context() if secure else None,
        limit=_MAX_LINE,
    )  # fmt: skip
    try:
        if lasting:
            for level, option, value in _KEEP_ALIVE:
                writer.get_extra_info("socket").setsockopt(level, option, value)
        writer.write(_request(parts, access.authorization))
        await writer.drain()
        yield reader, await _head(reader)
    finally:
        writer.transport.abort()


async def _follow(url: str, access: Access, bound: int, grow: Callable[[], Awaitable[object]] | None) -> bytes:
    for _ in range(_MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        async with _asked(parts, access) as (reader, head):
            if head.status == 200:
                if head.headers.get("content-type", "").lower().startswith("text/html"):
                    raise TargetUnavailableError("it answers with a web page, not a profile", "not_profile")
                return await _body(reader, head, bound, grow)
            if head.status not in (301, 302, 303, 307, 308):
                raise await _refused(reader, head, access)
        target = urlsplit(urljoin(url, head.headers.get("location", "")))
        if (target.scheme, target.netloc) != (parts.scheme, parts.netloc):
            raise TargetUnavailableError("it redirects to another host, which is not followed", "redirect")
        url = target.geturl()
    raise TargetUnavailableError(f"it redirects more than {_MAX_REDIRECTS} times", "redirect")


async def _refused(reader: asyncio.StreamReader, head: _Head, access: Access) -> TargetUnavailableError:
    text = await _excerpt(reader, head, access)
    return TargetUnavailableError(f"it answers with status {head.status}{text}", "status", head.status)


def _request(parts: SplitResult, authorization: Secret) -> bytes:
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_PATH)
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "User-Agent: perfstream",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if authorization:
        lines.append(f"Authorization: {authorization.reveal()}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii", "strict")


async def _head(reader: asyncio.StreamReader) -> _Head:
    while True:
        version, _, rest = (await _line(reader)).partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (code.isdecimal() and code.isascii() and len(code) == 3):
            raise TargetUnavailableError("the answer is not HTTP", "protocol")
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADERS):
            line = await _line(reader)
            if not line:
                break
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        else:
            raise TargetUnavailableError(f"the answer has more than {_MAX_HEADERS} headers", "protocol")
        if not code.startswith("1"):
            return _Head(int(code), headers)


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readuntil(b"\n")
    return line.decode("latin-1").strip("\r\n")


async def _body(
    reader: asyncio.StreamReader, head: _Head, bound: int, grow: Callable[[], Awaitable[object]] | None
) -> bytes:
    body = bytearray()
    grown = grow is None
    async for piece in _pieces(reader, head, bound):
        if not grown and len(body) + len(piece) > SMALL_BODY:
            assert grow is not None
            await grow()
            grown = True
        body += piece
        if len(body) > bound:
            raise _too_large(bound)
    return bytes(body)


async def _excerpt(reader: asyncio.StreamReader, head: _Head, access: Access) -> str:
    """Return the begin of an error's text, for the log; the secret is taken out should the target have repeated it."""
    text = bytearray()
    try:
        async with asyncio.timeout(1.0):
            async for piece in _pieces(reader, head, 1 << 62):
                text += piece
                if len(text) >= _EXCERPT_READ:
                    break
    except (TimeoutError, TargetUnavailableError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        pass
    shown = text.decode("utf-8", "replace")
    secret = access.authorization.reveal()
    for part in (secret, secret.partition(" ")[2].strip()):
        shown = shown.replace(part, "***") if part else shown
    shown = "".join(c if c.isprintable() else "?" for c in " ".join(shown.split())[:_EXCERPT])
    return f": {shown}" if shown else ""


async def _pieces(reader: asyncio.StreamReader, head: _Head, bound: int) -> AsyncIterator[bytes]:
    """Yield the body in pieces of at most 64 KiB."""
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        while size := _chunk_size(await reader.readuntil(b"\n")):
            async for piece in _exactly(reader, size):
                yield piece
            if (await reader.readuntil(b"\n")).strip():
                raise TargetUnavailableError("the answer's chunks are malformed", "protocol")
        return
    length = head.headers.get("content-length")
    if length is not None:
        if not (length.isascii() and length.isdecimal() and len(length) <= 18):
            raise TargetUnavailableError("the answer's length is malformed", "protocol")
        if int(length) > bound:
            raise _too_large(bound)
        async for piece in _exactly(reader, int(length)):
            yield piece
        return
    while piece := await reader.read(_READ):
        yield piece


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not 0 < len(digits) <= 15 or not _HEX.issuperset(digits):
        raise TargetUnavailableError("the answer's chunks are malformed", "protocol")
    return int(digits, 16)


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(size, _READ))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        yield piece


def _too_large(bound: int) -> TargetUnavailableError:
    return TargetUnavailableError(f"the answer is larger than {bound >> 20} MB; reading stopped there", "too_large")
