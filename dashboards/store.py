"""The reading side's connection to ClickHouse: one place where its errors become ours."""

from __future__ import annotations

import logging
import os
import re
import warnings
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from runtime import settings, workdir
from runtime.settings import ClickHouseSettings
from sinks.tables import DATABASE
from streams.schema.errors import PerfstreamError, SettingsError, StoreRejectedError, StoreUnavailableError

CONNECT_TIMEOUT_S = 5
QUERY_TIMEOUT_S = 120
_NO_TABLES = re.compile(r"\bCode: (?:60|81)\b")  # unknown table, unknown database


@dataclass(frozen=True, slots=True)
class _ReadSettings:
    clickhouse: ClickHouseSettings = field(default_factory=ClickHouseSettings)


class Store:
    """A client that only reads. Raises ``StoreUnavailableError`` and ``StoreRejectedError``."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - clickhouse-connect is untyped
        self.client = client

    def rows(self, sql: str, parameters: dict[str, object] | None = None) -> list[dict[str, Any]]:
        """Return the answer as one mapping for each row, keyed by column."""
        try:
            answer = self.client.query(sql, parameters=parameters or {})
        except Exception as error:
            raise _translated(error) from error
        return [dict(zip(answer.column_names, row, strict=True)) for row in answer.result_rows]

    def columns(self, sql: str, parameters: dict[str, object] | None = None) -> Any:  # noqa: ANN401 - a pyarrow.Table
        """Return the answer as an Arrow table: for many rows."""
        try:
            return self.client.query_arrow(sql, parameters=parameters or {}, use_strings=True)
        except Exception as error:
            raise _translated(error) from error


def connect(dsn: str = "") -> Store:
    """Return a store: the DSN given, else the configured one, else that of the stack in the working directory.

    Raises:
        SettingsError: there is none.
        StoreUnavailableError: it does not answer.
    """
    import clickhouse_connect

    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what it says is said here, in one line
    configured = settings.load(_ReadSettings).clickhouse
    if dsn:
        configured = replace(configured, dsn=dsn)
    elif "PERFSTREAM_CLICKHOUSE_DSN" not in os.environ and configured.dsn == ClickHouseSettings().dsn:
        configured = replace(configured, dsn=workdir.read().clickhouse)
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "send_receive_timeout": QUERY_TIMEOUT_S,
        "autogenerate_session_id": False,
    }
    if "://" not in configured.dsn:
        raise SettingsError(f"'{_shown(configured.dsn)}' is not a DSN; write http://HOST:8123/perfstream")
    if "@" in configured.dsn.split("://", 1)[1]:  # the DSN's own user wins over the default one
        given = {k: v for k, v in configured.client_options().items() if k not in ("username", "password")}
    else:
        given = configured.client_options()
    if not urlsplit(configured.dsn).path.strip("/"):
        options["database"] = DATABASE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Store(clickhouse_connect.get_client(**(options | given)))
    except Exception as error:
        translated = _translated(error)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise StoreUnavailableError(
                f"the certificate of ClickHouse at {_shown(configured.dsn)} is not trusted; "
                "set PERFSTREAM_CLICKHOUSE_CA_CERT to its authority's"
            ) from error
        if isinstance(translated, StoreUnavailableError):
            raise StoreUnavailableError(
                f"no ClickHouse answers at {_shown(configured.dsn)}; is it running? Start one with 'make up', "
                "or give --dsn"
            ) from error
        raise translated from error


def _shown(dsn: str) -> str:
    scheme, separator, rest = dsn.partition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"


def _translated(error: Exception) -> Exception:
    import clickhouse_connect.driver.exceptions as theirs

    if isinstance(error, PerfstreamError):
        return error
    text = re.sub(r" In scope .*(?=\(|$)", " ", " ".join(str(error).split()))
    # The driver raises OperationalError for what it could not send, DatabaseError for what the server refused.
    if isinstance(error, (OSError, theirs.OperationalError)) and "Code:" not in text:
        return StoreUnavailableError(f"ClickHouse did not answer: {text[:300]}")
    if _NO_TABLES.search(text):
        found = re.search(r"DB::Exception: ([^.]*)", text)
        what = f" ({found[1].strip()})" if found else ""
        return StoreRejectedError(f"perfstream's tables are not in this database{what}; run 'perfstream migrate'")
    if isinstance(error, theirs.Error):
        return StoreRejectedError(f"ClickHouse refused the query: {text[:600]}")
    return error
