"""Typed settings, read once: defaults, then a TOML file, then ``PERFSTREAM_*`` variables.

A process declares one frozen dataclass; nested dataclasses are TOML tables. The field ``kafka.bootstrap_servers`` is
``[kafka] bootstrap_servers`` in the file and ``PERFSTREAM_KAFKA_BOOTSTRAP_SERVERS`` in the environment. Lists in a
variable are separated by commas, mappings are ``key=value`` separated by commas. A tuple of dataclasses is an array of
tables (``[[agent.scrape]]``) and stands in the file only.
"""

from __future__ import annotations

import hmac
import os
import ssl
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from streams.schema.errors import SettingsError

PREFIX = "PERFSTREAM"
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
T = TypeVar("T")


class Secret:
    """A text that does not show itself when a settings object is printed, logged, formatted or made JSON of.

    No ``str``, which would show itself when it is joined, padded or encoded.
    """

    __slots__ = ("_text",)

    def __init__(self, text: object = "") -> None:
        self._text = text.reveal() if isinstance(text, Secret) else str(text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "'***'" if self else "''"

    def __str__(self) -> str:
        return "***" if self else ""

    def __reduce__(self) -> str:
        raise TypeError("a secret is not copied out of the process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def reveal(self) -> str:
        """Return the secret itself, for handing it to a client library."""
        return self._text


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka. ``options`` go to the client under their own names."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: Secret = Secret("")
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_keypassword: Secret = Secret("")
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments for any aiokafka client.

        Raises:
            SettingsError: the protocol is unknown, SASL lacks its user, or a file of certificates cannot be used.
        """
        if self.security_protocol not in _PROTOCOLS:
            raise SettingsError(f"setting kafka.security_protocol is none of {', '.join(_PROTOCOLS)}")
        kwargs: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        if "SSL" in self.security_protocol:
            kwargs["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            if not self.sasl_username or not self.sasl_password:
                raise SettingsError(
                    f"{self.security_protocol} wants kafka.sasl_username and kafka.sasl_password "
                    "(PERFSTREAM_KAFKA_SASL_USERNAME, PERFSTREAM_KAFKA_SASL_PASSWORD)"
                )
            kwargs |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.reveal(),
            }
        return kwargs | {key: _number_or_text(value) for key, value in self.options.items()}

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        at = "ssl_cafile", self.ssl_cafile
        try:
            if self.ssl_cafile:
                # Only this authority is trusted then, and none of the system's.
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(self.ssl_cafile)
            if self.ssl_certfile:
                at = "ssl_certfile, ssl_keyfile", self.ssl_certfile
                # Without a password an encrypted key is an error, where OpenSSL would ask on the terminal.
                context.load_cert_chain(
                    self.ssl_certfile, self.ssl_keyfile or None, password=self.ssl_keypassword.reveal()
                )
        except OSError as error:
            reason = (error.reason or "not PEM") if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsError(f"setting kafka.{at[0]}: {at[1]} cannot be used: {reason}") from error
        return context


@dataclass(frozen=True, slots=True)
class ClickHouseSettings:
    """How to reach ClickHouse: any server that speaks its HTTP interface, the embedded one included."""

    dsn: str = field(default="http://127.0.0.1:8123/perfstream", repr=False)
    username: str = "default"
    password: Secret = Secret("")
    verify: bool = True
    ca_cert: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse a DSN that cannot be one, before a library does and shows the password in it."""
        try:
            parts = urlsplit(self.dsn)
            fine = "://" not in self.dsn or (bool(parts.hostname) and parts.port != 0)
        except ValueError:
            fine = False
        if not fine:
            raise SettingsError("setting clickhouse.dsn is not a DSN; write http://HOST:8123/perfstream")

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments for ``clickhouse_connect.get_client``, the database aside."""
        kwargs: dict[str, Any] = {"dsn": self.dsn, "verify": self.verify}
        if "@" not in self.dsn:  # the DSN's own user wins
            kwargs["username"] = self.username
            if self.password:
                kwargs["password"] = self.password.reveal()
        if self.dsn.startswith("https://"):
            # The driver takes host and port from a DSN, and speaks plain HTTP to them unless told.
            kwargs["interface"] = "https"
        if self.ca_cert:
            kwargs["ca_cert"] = self.ca_cert
        return kwargs | {key: _number_or_text(value) for key, value in self.options.items()}


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where a process serves ``/metrics`` and ``/healthz``; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0


def load(cls: type[T], path: Path | None = None, environ: Mapping[str, str] | None = None) -> T:
    """Read a process's settings.

    Args:
        cls: a frozen dataclass. Fields without a default must be given.
        path: a TOML file; none when absent. Default: ``PERFSTREAM_CONFIG``.
        environ: default ``os.environ``.

    Raises:
        SettingsError: the file cannot be read, a key is unknown or missing, or a value is not of its type.
    """
    environ = os.environ if environ is None else environ
    if path is None and environ.get(f"{PREFIX}_CONFIG"):
        path = Path(environ[f"{PREFIX}_CONFIG"])
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"settings file {path}: {error}") from error
    return _build(cls, table, environ, ())


def _build(cls: type[T], table: Mapping[str, Any], environ: Mapping[str, str], where: tuple[str, ...]) -> T:
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for spec in fields(cls):  # type: ignore[arg-type]
        name, kind, at = spec.name, hints[spec.name], (*where, spec.name)
        if isinstance(kind, type) and is_dataclass(kind):
            if not isinstance(table.get(name, {}), dict):
                raise SettingsError(f"setting {'.'.join(at)} is a table: write [{'.'.join(at)}] in the settings file")
            values[name] = _build(kind, table.get(name, {}), environ, at)
            continue
        variable = "_".join((PREFIX, *at)).upper()
        if variable in environ:
            values[name] = _convert(environ[variable], kind, variable)
        elif name in table:
            values[name] = _convert(table[name], kind, ".".join(at))
    # Other processes share the file: unknown tables are theirs, unknown keys inside our tables are mistakes.
    known = {spec.name for spec in fields(cls)}  # type: ignore[arg-type]
    wrong = sorted(key for key in table if key not in known and (where or not isinstance(table[key], dict)))
    if wrong:
        raise SettingsError(f"unknown setting {'.'.join((*where, wrong[0]))!r}; known here: {', '.join(sorted(known))}")
    needed = {spec.name for spec in fields(cls) if spec.default is MISSING and spec.default_factory is MISSING}  # type: ignore[arg-type]
    missing = sorted(needed - values.keys())
    if missing:
        raise SettingsError(f"setting {'.'.join((*where, missing[0]))!r} is missing")
    return cls(**values)


def _tables(kind: type[T], value: object, name: str) -> tuple[T, ...]:
    """Build an array of tables. What one table refuses is an error that names its place, counted from 0."""
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise SettingsError(f"setting {name} is a list of tables: write [[{name}]] in the settings file")
    built = []
    for number, table in enumerate(value):
        place = f"{name}[{number}]"
        try:
            built.append(_build(kind, table, {}, (place,)))
        except SettingsError as error:
            text = str(error)
            raise SettingsError(text if place in text else f"setting {place}: {text}") from error
    return tuple(built)


def _convert(value: Any, kind: Any, name: str) -> Any:  # noqa: ANN401 - TOML values are of any type
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        kind = next(arg for arg in get_args(kind) if arg is not type(None))
        return _convert(value, kind, name)
    if origin is tuple and is_dataclass(get_args(kind)[0]):
        return _tables(get_args(kind)[0], value, name)
    try:
        if kind is bool:
            return _boolean(value)
        if kind in (int, float, str, Secret, Path):
            if isinstance(value, (list, dict)):
                raise ValueError("one value is wanted")
            return kind(value)
        if origin is tuple:
            parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
            return tuple(_convert(part, get_args(kind)[0], name) for part in parts)
        if origin is Mapping:
            return _mapping(value)
    except (ValueError, TypeError, AttributeError) as error:
        if kind is Secret or origin is Mapping:
            raise SettingsError(f"setting {name}: {error}") from None
        raise SettingsError(f"setting {name}: {value!r} is not a {getattr(kind, '__name__', kind)}: {error}") from error
    return value


def _mapping(value: object) -> dict[str, str]:
    """A client's option may be a secret: no text of it stands in an error."""
    if isinstance(value, str):
        parts = [part for part in value.split(",") if part]
        if not all("=" in part for part in parts):
            raise ValueError("write key=value, separated by commas")
        value = dict(part.split("=", 1) for part in parts)
    if not isinstance(value, dict):
        raise TypeError("a table is wanted")
    return {str(key): str(item) for key, item in value.items()}


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("use true or false")


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
