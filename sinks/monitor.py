"""Tells in ``/healthz`` what a sink that has nothing to do would not notice: Kafka or the store away, being late."""

from __future__ import annotations

import asyncio
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Hashable, Iterable
from typing import Any
from urllib.parse import urlsplit

from runtime.kafka import answers
from runtime.lag import Lag
from runtime.observe import Health
from runtime.settings import ClickHouseSettings
from sinks.metrics import Metrics
from streams.schema.errors import StoreUnavailableError

EVERY_S = 3.0
TIMEOUT_S = 5.0


class Monitor:
    """Looks every few seconds, in tasks of its own: neither look waits for the other, nor for an insert.

    Args:
        settings: where the store is.
        health: gets the checks ``kafka``, ``answers`` (the store) and ``lag``.
        metrics: gets the lag in seconds.
    """

    def __init__(self, settings: ClickHouseSettings, health: Health, metrics: Metrics) -> None:
        self._settings, self._health = settings, health
        self._lag = Lag()
        health.ask("lag", lambda: self._lag.trouble(time.monotonic()))
        metrics.lag_seconds.set_function(lambda: self._lag.seconds(time.monotonic()))

    async def watch(self, client: Any, back: Callable[[], None]) -> None:  # noqa: ANN401 - aiokafka is untyped
        """Look until cancelled. ``client`` is a connected aiokafka client, ``back`` called when the store is back."""
        await asyncio.gather(self._watch_kafka(client), self._watch_store(back))

    def stands(self, partitions: Iterable[tuple[Hashable, int, int | None]]) -> None:
        """Take in (partition, first offset not stored, end or None) of all partitions that are ours."""
        now, ours = time.monotonic(), []
        for partition, position, end in partitions:
            ours.append(partition)
            self._lag.observe(partition, position, end or position, now)
        self._lag.keep(ours)

    async def _watch_kafka(self, client: Any) -> None:  # noqa: ANN401
        while True:
            reason = await answers(client, TIMEOUT_S)
            self._say("kafka", f"Kafka does not answer: {reason}" if reason else "")
            await asyncio.sleep(EVERY_S)

    async def _watch_store(self, back: Callable[[], None]) -> None:
        loop, away = asyncio.get_running_loop(), False
        while True:
            try:
                await loop.run_in_executor(None, ping, self._settings)
            except StoreUnavailableError as error:
                away = True
                self._say("answers", f"the store does not answer: {error}; Kafka holds the data")
            else:
                self._say("answers", "")
                if away:
                    away = False
                    back()
            await asyncio.sleep(EVERY_S)

    def _say(self, check: str, reason: str) -> None:
        if reason:
            self._health.ill(check, reason)
        else:
            self._health.well(check)


def ping(settings: ClickHouseSettings, timeout_s: float = TIMEOUT_S) -> None:
    """Ask the store whether it is there; needs no user.

    Raises:
        StoreUnavailableError: it does not answer in time.
    """
    parts = urlsplit(settings.dsn)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    where = f"{host}:{parts.port}" if parts.port else host
    context = None
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=settings.ca_cert or None)
        if not settings.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(f"{parts.scheme}://{where}/ping", timeout=timeout_s, context=context) as answer:  # noqa: S310
            answer.read(64)
    except urllib.error.HTTPError as error:
        error.close()  # it is there; what it refuses, an insert will say
    except (OSError, ValueError) as error:
        raise StoreUnavailableError(f"{where}: {getattr(error, 'reason', error)}") from error
