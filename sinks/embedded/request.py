"""One HTTP request as the query interface reads it: parameters, settings, and the statement apart from its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import parse_qsl, urlsplit

from sinks.embedded.engine import checked_format
from sinks.embedded.errors import QueryError
from sinks.embedded.settings import Options
from sinks.embedded.statement import Statement, analyse

_HEAD = 256 << 10
_OWN = frozenset((
    "query", "database", "default_format", "user", "password", "quota_key", "query_id", "session_id", "session_timeout",
    "session_check", "session_timezone_from_client", "close_session", "role", "compress", "decompress", "buffer_size",
    "wait_end_of_query", "stacktrace", "client_protocol_version", "enable_http_compression",
    "http_zlib_compression_level", "network_compression_method", "network_zstd_compression_level",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "http_wait_end_of_query",
    "http_response_buffer_size", "add_http_cors_header",
))  # fmt: skip
"""Parameters that the HTTP interface itself acts on, or takes without effect here; every other one is a setting."""


@dataclass(slots=True)
class Request:
    """A parsed request. ``body`` yields what is left of it, decoded, when the statement is an INSERT with data."""

    statement: Statement
    parameters: dict[str, str]
    settings: dict[str, str]
    params: dict[str, str]
    database: str
    output: str
    readonly: bool
    body: Iterator[bytes] = field(default_factory=lambda: iter(()))

    def flag(self, name: str) -> bool:
        """Return whether a parameter is switched on."""
        return self.parameters.get(name, "").lower() in ("1", "true", "yes", "on")


def parameters_of(target: str) -> tuple[str, dict[str, str]]:
    """Return (path, parameters) of a request target; of a repeated parameter the last counts."""
    try:
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=1000, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise QueryError.of(36, "BAD_ARGUMENTS", f"The URL's parameters cannot be read: {error}") from None
    return parts.path, dict(pairs)


def read(
    options: Options,
    method: str,
    parameters: dict[str, str],
    headers: Mapping[str, str],
    body: Iterator[bytes],
) -> Request:
    """Take a request apart.

    Raises:
        QueryError: the statement is empty or too large, or the format is no name.
    """
    statement, rest = _statement(parameters.get("query", "").encode(), body, options.max_query_bytes)
    output = (
        statement.format
        if statement.format and statement.kind != "insert"
        else headers.get("X-ClickHouse-Format") or parameters.get("default_format") or "TabSeparated"
    )
    return Request(
        statement=statement,
        parameters=parameters,
        settings={k: v for k, v in parameters.items() if k not in _OWN and not k.startswith("param_")},
        params={k[6:]: v for k, v in parameters.items() if k.startswith("param_")},
        database=headers.get("X-ClickHouse-Database") or parameters.get("database", ""),
        output=checked_format(output),
        readonly=method == "GET",
        body=rest,
    )


def _statement(given: bytes, body: Iterator[bytes], bound: int) -> tuple[Statement, Iterator[bytes]]:
    """Return the statement and the data that follow it; the statement may come in the URL, the body, or across both."""
    if given.strip():
        statement = analyse(given)
        assert statement is not None
        if statement.kind == "insert":
            return statement, chain([statement.data] if statement.data.strip() else [], body)
        if statement.kind == "insert_select":
            return statement, body
        extra = b"".join(_bounded(body, bound))
        if not extra.strip():
            return statement, iter(())
        # ClickHouse reads the parameter and the body as one text.
        return _whole(given + b"\n" + extra), iter(())
    head = bytearray()
    tried = 0
    for chunk in body:
        head += chunk
        if tried and len(head) - tried < _HEAD and len(head) <= bound:
            continue
        tried = len(head)
        statement = analyse(bytes(head[:_HEAD]), whole=False) if head[:1024].lstrip()[:1] in b"iI-/#(" else None
        if statement is not None and statement.kind == "insert":
            data = statement.data + bytes(head[_HEAD:])
            return statement, chain([data] if data else [], body)
        if len(head) > bound:
            raise QueryError.of(229, "QUERY_IS_TOO_LARGE", f"The statement is larger than {bound} bytes")
    if not head.strip():
        raise QueryError.of(62, "SYNTAX_ERROR", "Empty query")
    whole = _whole(bytes(head))
    return whole, iter([whole.data] if whole.data else [])


def _whole(query: bytes) -> Statement:
    statement = analyse(query)
    assert statement is not None
    return statement


def _bounded(chunks: Iterator[bytes], bound: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > bound:
            raise QueryError.of(229, "QUERY_IS_TOO_LARGE", f"The statement is larger than {bound} bytes")
        yield chunk
