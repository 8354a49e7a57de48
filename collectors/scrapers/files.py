"""Scrape targets from files in Prometheus's ``file_sd`` form, read again when they change.

A file is a JSON list of ``{"targets": ["host:port", ...], "labels": {...}}``. A file that cannot be used is said once
for each of its states and counted, and the targets that it last had stay. YAML is not read: the agent would need a
parser for it, and Prometheus itself reads the same list as JSON.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from collectors.scrapers.settings import DEFAULT_PATH, DEFAULT_PROFILES, DiscoverySettings, ScrapeTarget
from collectors.symbols import files
from runtime.log import Once
from streams.schema.errors import SettingsError

MAX_BYTES = 4 << 20
MAX_FILES = 100
MAX_TARGETS = 10_000
REFRESH_S = 5.0
_LONGEST = 256
_LOG = logging.getLogger(__name__)
# Ours, and what others call the same.
_NAMES = {
    "service": ("service", "service_name", "job"),
    "version": ("version", "service_version"),
    "namespace": ("namespace",),
    "pod": ("pod",),
    "container": ("container",),
}

_State = tuple[int, int, int, int]


class FileTargets:
    """A source of targets; a ``Source`` of the scraper. Two look-ups for each file every five seconds.

    Args:
        settings: the patterns, and what all targets have in common.
        registry: where the metrics go.
        clock: seconds, monotonic.
    """

    name = "file"

    def __init__(
        self,
        settings: DiscoverySettings,
        registry: CollectorRegistry = REGISTRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._clock = settings, clock
        self._once = Once(_LOG)
        self._read: dict[str, tuple[_State | None, tuple[ScrapeTarget, ...]]] = {}
        self._next = float("-inf")
        self._errors = Counter(
            "perfstream_discovery_file_errors", "Files of targets that could not be used", registry=registry
        )

    def targets(self) -> Sequence[ScrapeTarget]:
        """Return the targets of all files, in the order of their names."""
        if self._clock() >= self._next:
            self._next = self._clock() + REFRESH_S
            self._look()
        return [target for _, found in self._read.values() for target in found]

    def _look(self) -> None:
        paths = sorted({path for pattern in self._settings.files for path in glob.glob(pattern)})  # noqa: PTH207
        if len(paths) > MAX_FILES:
            self._once.warning("many", f"more than {MAX_FILES} files of targets: the rest is left out")
            self._errors.inc()
        self._read = {path: self._one(path) for path in paths[:MAX_FILES]}

    def _one(self, path: str) -> tuple[_State | None, tuple[ScrapeTarget, ...]]:
        before = self._read.get(path, (None, ()))
        state: _State | None = None
        try:
            fd = files.open_regular(Path(path))
            with files.closing(fd):
                status = os.fstat(fd)
                state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
                if state == before[0]:
                    return before
                data = os.read(fd, MAX_BYTES + 1) if status.st_size <= MAX_BYTES else b""
            if status.st_size > MAX_BYTES or len(data) > MAX_BYTES:
                raise SettingsError(f"it is larger than {MAX_BYTES >> 20} MB")
            return state, parse(data, self._settings)
        except (OSError, SettingsError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            # A state that was refused is not looked at again; one that cannot be read is, and is said once.
            self._once.warning(f"{path} {state} {why}", "a file of scrape targets cannot be used; its last targets "
                               "stay", file=path, why=why)  # fmt: skip
            self._errors.inc()
            return state, before[1]


def parse(data: bytes, settings: DiscoverySettings) -> tuple[ScrapeTarget, ...]:
    """Return the targets of one file.

    Raises:
        SettingsError: it is not of the form, or a target is none; says where, counted from 0.
    """
    try:
        groups = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"it is not JSON (YAML is not read): {error}") from None
    if not isinstance(groups, list):
        raise SettingsError('it is not a list of {"targets": [...], "labels": {...}}')
    found: list[ScrapeTarget] = []
    for number, group in enumerate(groups):
        addresses, labels = _group(group, number)
        for address in addresses:
            try:
                found.append(_target(labels.get("__address__") or address, labels, settings))
            except SettingsError as error:
                raise SettingsError(f"[{number}] {address[:100]!r}: {error}") from None
            if len(found) > MAX_TARGETS:
                raise SettingsError(f"it has more than {MAX_TARGETS} targets")
    return tuple(found)


def _group(group: Any, number: int) -> tuple[list[str], Mapping[str, str]]:  # noqa: ANN401 - JSON is of any type
    if not isinstance(group, dict) or not group.keys() <= {"targets", "labels"}:
        raise SettingsError(f'[{number}] is not {{"targets": [...], "labels": {{...}}}}')
    addresses, labels = group.get("targets"), group.get("labels") or {}
    if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
        raise SettingsError(f'[{number}] "targets" is not a list of "host:port"')
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise SettingsError(f'[{number}] "labels" is not an object of texts')
    return addresses, labels


def _target(address: str, labels: Mapping[str, str], settings: DiscoverySettings) -> ScrapeTarget:
    if "/" in address:
        raise SettingsError("a target is host:port; its scheme is the label __scheme__, its path __metrics_path__")
    seconds = labels.get("__param_seconds", "")
    if seconds and not (seconds.isascii() and seconds.isdecimal() and len(seconds) < 6):
        raise SettingsError("__param_seconds must be whole seconds")
    return ScrapeTarget(
        f"{labels.get('__scheme__') or 'http'}://{address}",
        path=labels.get("__metrics_path__") or DEFAULT_PATH,
        service=_named("service", labels),
        version=_named("version", labels),
        namespace=_named("namespace", labels),
        pod=_named("pod", labels),
        container=_named("container", labels),
        profiles=_profiles(labels.get("profiles", "")),
        seconds=int(seconds or settings.seconds),
        timeout_s=settings.timeout_s,
        authorization=settings.authorization,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        insecure=settings.insecure,
    )


def _named(ours: str, labels: Mapping[str, str]) -> str:
    name = next((name for name in _NAMES[ours] if labels.get(name)), None)
    if name is None:
        return ""
    if not labels[name].isprintable():
        raise SettingsError(f"the label {name} holds what cannot be printed")
    return labels[name][:_LONGEST]


def _profiles(text: str) -> Mapping[str, str | int]:
    """Return {profile: interval} of ``heap=60,goroutine``; a name alone has its usual interval."""
    parts = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if not parts:
        return DEFAULT_PROFILES
    return {name: value if equals else DEFAULT_PROFILES.get(name, 0) for name, equals, value in parts}
