"""The working directory of a local stack, and the addresses it publishes in ``endpoints.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from streams.schema.errors import SettingsError

VARIABLE = "PERFSTREAM_WORKDIR"
DEFAULT = Path(".perfstream")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of a running stack. ``metrics`` is keyed by process: agent, worker, sink, store, scraper."""

    kafka: str
    clickhouse: str
    metrics: Mapping[str, str] = field(default_factory=dict)
    push: str = ""


def workdir(given: Path | None = None) -> Path:
    """Return the working directory: as given, else ``PERFSTREAM_WORKDIR``, else ``.perfstream`` here."""
    return given or Path(os.environ.get(VARIABLE) or DEFAULT)


def write(directory: Path, endpoints: Endpoints) -> None:
    """Write ``endpoints.json`` in one step, so that a reader never sees half of it."""
    target = directory / "endpoints.json"
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(endpoints), indent=2) + "\n")
    partial.replace(target)


def read(directory: Path | None = None) -> Endpoints:
    """Return the addresses of the stack that runs in a working directory.

    Raises:
        SettingsError: no stack has written its addresses there.
    """
    path = workdir(directory) / "endpoints.json"
    try:
        return Endpoints(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"no running stack found at {path}; start one with 'make up', set {VARIABLE}, or give --dsn"
        ) from error
