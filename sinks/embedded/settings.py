"""Settings of the embedded store, as TOML or ``PERFSTREAM_STORE_*`` / ``PERFSTREAM_HTTP_*`` variables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from runtime.settings import HttpSettings, Secret
from streams.schema.errors import SettingsError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
GIB = 1 << 30
_POSITIVE = (
    "max_queries", "max_inserts", "max_connections", "max_sessions", "max_query_bytes", "reader_queries",
    "reader_query_bytes", "reader_memory_bytes", "reader_result_rows",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """The ``[store]`` table.

    ``username``/``password`` is the user that may do everything. Beyond loopback the server wants a password and
    ``cert_file`` (PEM, with ``key_file``: https), or ``allow_plain_http``, which says that something else encrypts.
    ``reader_username``/``reader_password``, when set, is a second user that may only read, within the
    ``reader_*`` limits. ``memory_ratio`` is how much of the machine's memory one query may take, ``minimum_free_bytes``
    the free space below which ``/healthz`` is ill.
    """

    path: Path = Path(".perfstream/store")
    host: str = "127.0.0.1"
    port: int = 8123
    username: str = "default"
    password: Secret = Secret("")
    reader_username: str = ""
    reader_password: Secret = Secret("")
    reader_execution_s: float = 30.0
    reader_memory_bytes: int = GIB
    reader_result_rows: int = 1_000_000
    reader_queries: int = 8
    reader_query_bytes: int = 256 << 10
    cert_file: str = ""
    key_file: str = ""
    allow_plain_http: bool = False
    max_execution_s: float = 300.0
    memory_ratio: float = 0.5
    max_queries: int = 16
    max_inserts: int = 4
    max_queued: int = 64
    queue_timeout_s: float = 10.0
    max_connections: int = 256
    max_sessions: int = 256
    max_query_bytes: int = 16 << 20
    max_body_bytes: int = 4 * GIB
    max_buffered_result_bytes: int = GIB
    minimum_free_bytes: int = GIB // 2

    def check(self) -> None:
        """Refuse an address or a limit that cannot be served.

        Raises:
            SettingsError: the address is reachable from other machines and no password is set, or a limit is not
                positive.
        """
        if self.host not in LOOPBACK and not self.password:
            raise SettingsError(
                f"the store will not listen on {self.host} without a password; "
                "set PERFSTREAM_STORE_PASSWORD, or bind to 127.0.0.1"
            )
        if self.key_file and not self.cert_file:
            raise SettingsError("store.key_file without store.cert_file; set both for https")
        if self.plain_beyond_loopback and not self.allow_plain_http:
            raise SettingsError(
                f"the store will not listen on {self.host} in plain HTTP, which anybody on the way reads; set "
                "PERFSTREAM_STORE_CERT_FILE and PERFSTREAM_STORE_KEY_FILE, or PERFSTREAM_STORE_ALLOW_PLAIN_HTTP=true"
            )
        if self.reader_username and not self.reader_password and self.host not in LOOPBACK:
            raise SettingsError("the reading user wants a password too; set PERFSTREAM_STORE_READER_PASSWORD")
        if self.reader_username and self.reader_username == self.username:
            raise SettingsError("store.reader_username must differ from store.username")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise SettingsError(f"store.{name} must be at least 1")
        if self.reader_execution_s <= 0:
            raise SettingsError("store.reader_execution_s must be above 0")
        if not 0 < self.memory_ratio <= 1:
            raise SettingsError("store.memory_ratio must be above 0 and at most 1")

    @property
    def plain_beyond_loopback(self) -> bool:
        """Return whether passwords and rows would travel readable between machines."""
        return self.host not in LOOPBACK and not self.cert_file

    def directory(self) -> Path:
        """Return the absolute path of the data; the directory is made when there is none.

        Raises:
            SettingsError: it cannot be made or written to.
        """
        path = self.path.resolve()
        if any(sign in str(path) for sign in "?&"):
            raise SettingsError(f"the store's path must not contain '?' or '&': {path}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise SettingsError(
                f"cannot write to the store's directory {path}: {error.strerror}; choose another --path"
            ) from error
        return path


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Everything that ``perfstream store`` reads."""

    store: Options = field(default_factory=Options)
    http: HttpSettings = field(default_factory=HttpSettings)
    log_level: str = "info"
