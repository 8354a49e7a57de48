"""Ordered, append-only, idempotent migrations: ``migrations/NNNN_name.sql``, applied once each.

A file's statements end with a semicolon and name tables without a database: the session's database is the target.
Every statement can be repeated (``IF NOT EXISTS``), so a crash between a statement and its record does no harm, and
two processes may migrate at the same time.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from runtime.settings import ClickHouseSettings
from sinks.client import close, connect, database_of, translated
from streams.schema.errors import SettingsError

DIRECTORY = Path(__file__).parent / "migrations"
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\Z")
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    name       String,
    checksum   FixedString(64),
    applied_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY name
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name without the suffix, the SHA-256 of its text, its statements."""

    name: str
    checksum: str
    statements: tuple[str, ...]


def statements(text: str) -> tuple[str, ...]:
    """Split a migration's text at the semicolons that end a line; comment lines are dropped."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    parts = (part.strip() for part in re.split(r";[ \t]*(?:\n|\Z)", kept))
    return tuple(part for part in parts if part)


def load(directory: Path = DIRECTORY) -> list[Migration]:
    """Return the migrations in order.

    Raises:
        SettingsError: a file is misnamed, or the numbers are not 1, 2, 3, ...
    """
    found = []
    for number, path in enumerate(sorted(directory.glob("*.sql")), start=1):
        match = _NAME.match(path.stem)
        if match is None or int(match.group(1)) != number:
            raise SettingsError(
                f"migration {path.name} should be number {number:04d}; names are NNNN_what.sql, no gaps"
            )
        text = path.read_text()
        found.append(Migration(path.stem, hashlib.sha256(text.encode()).hexdigest(), statements(text)))
    return found


def migrate(settings: ClickHouseSettings, directory: Path = DIRECTORY) -> list[str]:
    """Create the DSN's database and apply what is missing; returns the names that were applied.

    Raises:
        SettingsError: a migration that was applied before has changed since.
        StoreUnavailableError: the store does not answer.
        StoreRejectedError: the store refused a statement; its message says which.
    """
    migrations = load(directory)
    database = database_of(settings)
    first = connect(settings, "default")
    try:
        with translated(f"create database {database}"):
            first.command(f"CREATE DATABASE IF NOT EXISTS `{database}`")
    finally:
        close(first)
    client = connect(settings)
    applied = []
    try:
        with translated("schema_migrations"):
            client.command(_LEDGER)
            rows = client.query("SELECT name, toString(checksum) FROM schema_migrations FINAL").result_rows
        done: dict[str, str] = dict(rows)
        for migration in migrations:
            if migration.name in done:
                if done[migration.name] != migration.checksum:
                    raise SettingsError(
                        f"migration {migration.name} was changed after it had been applied to {database}; "
                        "restore it and add a new migration"
                    )
                continue
            for number, statement in enumerate(migration.statements, start=1):
                with translated(f"migration {migration.name}, statement {number}"):
                    client.command(statement)
            with translated("schema_migrations"):
                client.command(
                    "INSERT INTO schema_migrations (name, checksum) SELECT {name:String}, {checksum:String}",
                    parameters={"name": migration.name, "checksum": migration.checksum},
                )
            applied.append(migration.name)
    finally:
        close(client)
    return applied
