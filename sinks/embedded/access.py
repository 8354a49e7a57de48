"""Who may do what: one user for everything, and optionally one that may only read."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sinks.embedded.errors import QueryError
from sinks.embedded.settings import LOOPBACK, Options


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated user."""

    name: str
    reader: bool = False


def authenticate(options: Options, headers: Mapping[str, str], parameters: Mapping[str, str]) -> User:
    """Return the user of a request: ``X-ClickHouse-User``/``-Key``, then basic authentication, then URL parameters.

    Raises:
        QueryError: 516 for a wrong name or password; 194 when none was given but one is wanted; 497 for a web page from
            elsewhere, which a browser on this machine would otherwise let in.
    """
    origin = headers.get("Origin")
    if origin and not options.password and _host(origin) not in LOOPBACK:
        raise QueryError.of(497, "ACCESS_DENIED", "Web pages from elsewhere are let in with a password only")
    name, password, given = _credentials(options, headers, parameters)
    if options.reader_username and hmac.compare_digest(name.encode(), options.reader_username.encode()):
        wanted, user = options.reader_password.reveal(), User(name, reader=True)
    else:
        wanted, user = options.password.reveal(), User(name)
        if not hmac.compare_digest(name.encode(), options.username.encode()):
            hmac.compare_digest(password.encode(), wanted.encode())
            raise _refused(name)
    if not hmac.compare_digest(password.encode(), wanted.encode()):
        if not given:
            raise QueryError.of(194, "REQUIRED_PASSWORD", f"{name}: Authentication failed: password is required")
        raise _refused(name)
    return user


def _refused(name: str) -> QueryError:
    return QueryError.of(
        516,
        "AUTHENTICATION_FAILED",
        f"{name[:64]}: Authentication failed: password is incorrect, or there is no user with such name",
    )


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header as the UTF-8 that clients send; the standard library reads headers as Latin-1."""
    value = headers.get(name)
    return value if value is None else value.encode("latin-1", "replace").decode("utf-8", "replace")


def _credentials(options: Options, headers: Mapping[str, str], parameters: Mapping[str, str]) -> tuple[str, str, bool]:
    user, key = _header(headers, "X-ClickHouse-User"), _header(headers, "X-ClickHouse-Key")
    if user is not None or key is not None:
        return user or options.username, key or "", key is not None
    authorization = headers.get("Authorization")
    if authorization:
        kind, _, value = authorization.partition(" ")
        try:
            if kind.lower() == "basic":
                name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
                return name or options.username, password, True
        except (binascii.Error, UnicodeDecodeError):
            pass
        if kind.lower() == "bearer":
            return options.username, value.strip(), True
        raise _refused("default")
    if "user" in parameters or "password" in parameters:
        return parameters.get("user", options.username), parameters.get("password", ""), "password" in parameters
    return options.username, "", False
