"""Who may push: anybody on this machine, or whoever has the token."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from collectors.ingest.errors import RefusedError
from collectors.ingest.settings import LOOPBACK, IngestOptions


def check(options: IngestOptions, headers: Mapping[str, str]) -> None:
    """Let a request in: a bearer token, or basic authentication whose password is the token.

    Raises:
        RefusedError: 401, the token is missing or wrong; 403, a web page from elsewhere, which a browser on this
            machine would otherwise let in.
    """
    wanted = options.token.reveal()
    if not wanted:
        origin = headers.get("Origin")
        if origin and _host(origin) not in LOOPBACK:
            raise RefusedError(403, "origin", "web pages from elsewhere are let in with a token only")
        return
    kind, _, value = headers.get("Authorization", "").partition(" ")
    given = value.strip()
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
        raise RefusedError(
            401, "token", "a token is required: Authorization: Bearer TOKEN, or basic with it as password"
        )


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None
