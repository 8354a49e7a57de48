"""One door to ClickHouse: connecting, inserting Arrow, and telling 'try again' from 'refused'."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from runtime.settings import ClickHouseSettings
from streams.schema.errors import BackpressureError, SettingsError, StoreRejectedError, StoreUnavailableError

DEFAULT_DATABASE = "perfstream"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")

# The server's codes for "not so much", and how long to wait, in seconds: quota, queries, connections, memory, disk,
# parts, threads.
_BUSY = {201: 30.0, 202: 1.0, 203: 1.0, 241: 2.0, 243: 5.0, 252: 5.0, 439: 1.0}
# For "not now": too slow, read-only, aborted, no quorum or keeper, unknown whether it landed.
_RETRIABLE = frozenset({3, 74, 75, 159, 160, 164, 209, 210, 225, 236, 242, 285, 319, 394, 425, 473, 999})

# One request is one block, whatever its size, so that a repeat of it meets the same deduplication ids.
_ONE_BLOCK = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_threads": 1,
    "parallel_view_processing": 0,
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 100_000_000,
    "min_insert_block_size_bytes": 8 * 1024**3,
    # Merging each block of a Replacing or Summing table by itself finds next to nothing and costs as much as the rest
    # of the insert; merges in the background do it anyway, and FINAL takes a fresh part as it is.
    "optimize_on_insert": 0,
}


def database_of(settings: ClickHouseSettings) -> str:
    """Return the database that the DSN names (default ``perfstream``).

    Raises:
        SettingsError: the name is not a plain identifier.
    """
    name = urlsplit(settings.dsn).path.strip("/") or DEFAULT_DATABASE
    if not _IDENTIFIER.match(name):
        raise SettingsError(f"database {name[:64]!r} is not a plain name; use letters, digits and underscores")
    return name


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the driver's exceptions into ours: unavailable and backpressure are retriable, a refusal is not."""
    from clickhouse_connect.driver.exceptions import ClickHouseError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClickHouseError as error:
        code = getattr(error, "code", None)
        text = f"{what}: {str(error)[:300]}"
        if code in _BUSY:
            raise BackpressureError(text, _BUSY[code]) from error
        if code is not None and code not in _RETRIABLE:
            raise StoreRejectedError(text) from error
        raise StoreUnavailableError(text) from error
    except (HTTPError, OSError) as error:
        raise StoreUnavailableError(f"{what}: {str(error)[:300]}") from error


def connect(settings: ClickHouseSettings, database: str | None = None, timeout_s: int = 120) -> Any:  # noqa: ANN401
    """Return a clickhouse-connect client on ``database`` (default: the DSN's). Safe to use from several threads.

    Raises:
        StoreUnavailableError: nothing answers at the DSN.
        StoreRejectedError: the server refuses the user or the database.
    """
    import clickhouse_connect

    options = {"send_receive_timeout": timeout_s, "connect_timeout": 5, "compress": False, **settings.client_options()}
    # Sessions would serialise the requests of one client, and none of ours needs one.
    with translated(f"ClickHouse at {urlsplit(settings.dsn).hostname}"):
        return clickhouse_connect.get_client(
            **options, database=database or database_of(settings), autogenerate_session_id=False
        )


def close(client: Any) -> None:  # noqa: ANN401
    """Close a client, also one with TLS settings of its own, at which the driver fails beside ``urllib3-future``."""
    client.close_connections()
    with suppress(AttributeError):
        client.close()


def insert(client: Any, table: str, rows: pa.Table, token: str | None) -> int:  # noqa: ANN401
    """Insert all rows of an Arrow table as one block, once for each token; returns the bytes sent.

    Raises:
        StoreUnavailableError: it may or may not have landed; the same call with the same token is safe.
        BackpressureError: the store has too much to do; the same call after ``retry_after_s``.
        StoreRejectedError: the store refused it.
    """
    rows = pa.table([_narrow(column) for column in rows.combine_chunks().columns], names=rows.column_names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    body = sink.getvalue()
    settings: Mapping[str, Any] = _ONE_BLOCK | ({"insert_deduplication_token": token} if token else {})
    with translated(f"insert into {table}"):
        client.raw_insert(
            table, column_names=rows.column_names, insert_block=body.to_pybytes(), settings=settings, fmt="ArrowStream"
        )
    return int(body.size)


def _narrow(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece, the places in its dictionary as small as they can be: most of a row's bytes."""
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not pa.types.is_dictionary(whole.type):
        return whole
    size = len(whole.dictionary)
    kind = pa.uint8() if size <= 1 << 8 else pa.uint16() if size <= 1 << 16 else pa.uint32()
    return pa.DictionaryArray.from_arrays(whole.indices.cast(kind), whole.dictionary)
