"""Who may push: anybody on this machine, or whoever has the token; and the listener's TLS."""

from __future__ import annotations

import base64
import binascii
import hmac
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from collectors.ingest.errors import RefusedError
from collectors.ingest.settings import LOOPBACK, IngestOptions
from streams.schema.errors import SettingsError


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


def context(options: IngestOptions) -> ssl.SSLContext | None:
    """Return the server's side of TLS (1.2 and newer), or None when no certificate is set.

    Raises:
        SettingsError: a file cannot be read, is no PEM, or the key is another certificate's or encrypted.
    """
    if not options.cert_file:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password OpenSSL does not ask on the terminal for that of an encrypted key.
        made.load_cert_chain(options.cert_file, options.key_file or None, password="")
    except OSError as error:
        reason = (error.reason or "no PEM, or encrypted") if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            f"ingest.cert_file {options.cert_file} with ingest.key_file {options.key_file or '(the same file)'} "
            f"cannot be used: {reason}"
        ) from error
    return made


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None
