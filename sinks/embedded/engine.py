"""The chdb engine: one for each process and directory, many connections, each running one statement at a time."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sinks.embedded import swallowed
from sinks.embedded.errors import QueryError
from sinks.embedded.settings import Options
from sinks.embedded.tokens import take_back
from streams.schema.errors import SettingsError, StoreUnavailableError

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*$")
_FORMAT = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")


@dataclass(slots=True)
class Stats:
    """What a statement read and wrote, for ``X-ClickHouse-Summary`` and the metrics."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0


class Connection:
    """One connection to the engine: one statement at a time. ``tag`` finds its statements in ``system.processes``."""

    def __init__(self, raw: Any, tag: str) -> None:  # noqa: ANN401 - an object of the engine's extension module
        self._raw = raw
        self.tag = tag

    def execute(self, text: str, output: str = "TabSeparated", params: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401
        """Run a statement and return the engine's whole result.

        Raises:
            QueryError: the engine refused it, or it failed.
        """
        try:
            return self._raw.query(text, output, params=dict(params or {}))
        except RuntimeError as error:
            raise QueryError.from_engine(error) from None

    def text(self, text: str, params: Mapping[str, str] | None = None) -> str:
        """Run a statement and return its result as text (tab separated)."""
        return bytes(self.execute(text, params=params).bytes()).decode()

    def set(self, settings: Mapping[str, str]) -> None:
        """Apply settings to this connection.

        Raises:
            QueryError: 115 for an unknown setting, or the engine's reason.
        """
        if not settings:
            return
        for name in settings:
            if not _NAME.match(name):
                raise QueryError.of(115, "UNKNOWN_SETTING", f"Unknown setting '{name[:64]}'")
        self.execute("SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items()))

    def use(self, database: str) -> None:
        """Make a database the current one.

        Raises:
            QueryError: 81 when there is none of that name.
        """
        self.execute("USE " + identifier(database))

    def stream(self, text: str, output: str, params: Mapping[str, str], stats: Stats) -> Generator[Any, None, None]:
        """Yield the result of a SELECT part by part (about 65,000 rows each) while the engine works on it.

        Ending the iteration early ends the statement.
        """
        raw = self._raw
        handle = None
        try:
            handle = raw.send_query(text, output, params=dict(params))
            while True:
                part = raw.streaming_fetch_result(handle)
                data = part.bytes()
                stats.result_rows += part.rows_read()
                stats.read_rows = max(stats.read_rows, part.storage_rows_read())
                stats.read_bytes = max(stats.read_bytes, part.storage_bytes_read())
                if data:
                    yield data
                if not part.rows_read():
                    handle = None
                    return
        except RuntimeError as error:
            handle = None
            raise QueryError.from_engine(error) from None
        finally:
            if handle is not None:
                with suppress(RuntimeError):
                    raw.streaming_cancel_query(handle)

    def insert(self, text: str, data_format: str, chunks: Iterator[bytes]) -> Stats:
        """Run an INSERT whose data come as chunks of bytes in ``data_format``; memory stays bounded by the chunk size.

        An error of the engine or of the chunks' source ends the statement without its last block.
        """
        raw = self._raw
        before = swallowed.counts(raw)
        try:
            handle = raw.send_insert(text, checked_format(data_format))
        except RuntimeError as error:
            raise QueryError.from_engine(error) from None
        done = False
        try:
            for chunk in chunks:
                raw.insert_append(handle, chunk)
            # Whatever becomes of it, the handle is used up from here on.
            done = True
            result = raw.insert_done(handle)
        except RuntimeError as error:
            raise QueryError.from_engine(error) from None
        finally:
            if not done:
                with suppress(RuntimeError):
                    raw.insert_cancel(handle)
        swallowed.check(raw, before)
        return Stats(written_rows=result.rows_written(), written_bytes=result.bytes_written())

    def close(self) -> None:
        """Give the connection back to the engine."""
        self._raw.close()


class Engine:
    """The engine of this process. Opening a directory that another process has open fails."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.path = options.directory()
        self.memory_bytes = int(_machine_memory() * options.memory_ratio)
        self.defaults = self._defaults()
        self._connect_string = f"{self.path}?" + "&".join(f"{key}={value}" for key, value in self.defaults.items())
        self._raw_connect = _load()
        _refuse_second(self.path)
        take_back(self.path)
        try:
            self._base: Any = self._raw_connect(str(self.path))
        except RuntimeError as error:
            raise StoreUnavailableError(f"the engine cannot open {self.path}: {str(error)[:300]}") from error
        self._lock = threading.Lock()
        self._open = True
        self.version, self.timezone, self.name = self._hello()

    def _defaults(self) -> dict[str, str]:
        spill = self.memory_bytes // 2
        return {
            "implicit_select": "0",
            "max_execution_time": f"{self._options.max_execution_s:g}",
            "max_memory_usage": str(self.memory_bytes),
            "max_bytes_before_external_group_by": str(spill),
            "max_bytes_before_external_sort": str(spill),
        }

    def _hello(self) -> tuple[str, str, str]:
        with self.connection() as connection:
            row = connection.text("SELECT version(), timezone(), hostName()").rstrip("\n").split("\t")
        return row[0], row[1], row[2]

    def connect(self) -> Connection:
        """Open a connection with this server's limits set; about 0.2 ms."""
        tag = uuid.uuid4().hex
        try:
            return Connection(self._raw_connect(f"{self._connect_string}&log_comment={tag}"), tag)
        except RuntimeError as error:
            raise QueryError.from_engine(error) from None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Open a connection for the time of a block."""
        connection = self.connect()
        try:
            yield connection
        finally:
            connection.close()

    def kill(self, tag: str) -> None:
        """End the statements of a connection, if it has any; returns at once."""
        with suppress(QueryError), self.connection() as connection:
            connection.execute(f"KILL QUERY WHERE Settings['log_comment'] = {quote(tag)} ASYNC")

    def kill_all(self) -> None:
        """End every statement; for stopping."""
        with suppress(QueryError), self.connection() as connection:
            connection.execute("KILL QUERY WHERE query NOT LIKE 'KILL QUERY%' ASYNC")

    def free_bytes(self) -> int:
        """Return the free space of the file system that holds the data."""
        return shutil.disk_usage(self.path).free

    def close(self) -> None:
        """Stop the engine. Every other connection must be closed."""
        with self._lock:
            if self._open:
                self._open = False
                self._base.close()


def checked_format(name: str) -> str:
    """Return the name of a format.

    Raises:
        QueryError: 73, it cannot be one.
    """
    if not _FORMAT.match(name):
        raise QueryError.of(73, "UNKNOWN_FORMAT", f"Unknown format {name[:64]}")
    return name


def quote(value: str) -> str:
    """Return a string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """Return a quoted identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _machine_memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _refuse_second(path: Path) -> None:
    """Ask before the engine does: it would write about it to standard error, too."""
    try:
        with (path / "status").open("rb+") as status:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError as error:
        raise StoreUnavailableError(
            f"another process has the store at {path} open; end it, or choose another --path"
        ) from error


def _load() -> Any:  # noqa: ANN401
    try:
        # The extension itself: the package's own API has neither streamed inserts nor many connections to one path.
        return import_module("chdb._chdb").connect
    except ImportError as error:
        raise SettingsError("the embedded store needs chdb: pip install 'perfstream[store]'") from error
