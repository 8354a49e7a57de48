"""From decoded profiles to Kafka's acknowledgement.

A thread of its own sends with an idempotent producer (acks=all). What arrives while a message is on its way, or within
50 ms of it, goes into the next one, so that a busy endpoint sends few large messages and an idle one does not wait.

A client that is told 503 may send again. What was on its way then may arrive as well: once from each try.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.ingest import batches
from collectors.ingest.batches import Piece
from collectors.ingest.metrics import Metrics
from collectors.sending import Sender
from runtime.settings import KafkaSettings
from streams.schema import codec
from streams.schema.errors import BrokerUnavailableError
from streams.schema.messages import Interval
from streams.schema.topics import RAW_PROFILES

COLLECTOR = "push"
_LOG = logging.getLogger(__name__)
_MESSAGES_AT_ONCE = 16
_SPACING_S = 0.05
"""How long after a send the next one begins, so that profiles share messages under load; the first never waits."""


@dataclass(slots=True)
class _Waiting:
    """The pieces of one request, and who waits for them."""

    pieces: Sequence[Piece]
    done: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)


class Outlet(Sender):
    """Publishes pieces. ``publish`` may be called from any thread."""

    _retry_s = (0.25, 3.0)

    def __init__(self, kafka: KafkaSettings, topic_prefix: str, metrics: Metrics) -> None:
        super().__init__(kafka, "outlet", _LOG)
        self._topic = topic_prefix + RAW_PROFILES.name
        self._metrics = metrics
        self._producer_id = uuid.uuid4().hex
        self._sequence = 0
        self._waiting: deque[_Waiting] = deque()

    def publish(self, pieces: Sequence[Piece], timeout_s: float) -> None:
        """Return when Kafka has acknowledged all rows.

        Raises:
            BrokerUnavailableError: it has not in time; rows that had been sent may still arrive.
        """
        waiting = _Waiting(pieces)
        self._waiting.append(waiting)
        self._signal()
        try:
            waiting.done.result(timeout_s)
        except concurrent.futures.TimeoutError:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiting)  # not sent yet: it never will be
            raise BrokerUnavailableError(self.trouble or "Kafka does not acknowledge in time") from None

    def close(self, timeout_s: float = 3.0) -> None:
        """Send what waits, for at most ``timeout_s`` seconds; whoever still waits then gets an error."""
        self._end(timeout_s)
        for waiting in self._waiting:
            _fail(waiting, BrokerUnavailableError("the endpoint is stopping"))

    def _more(self) -> bool:
        return bool(self._waiting)

    def _options(self) -> dict[str, Any]:
        return {"max_request_size": codec.MAX_RECORD_BYTES, "retry_backoff_ms": 100}

    async def _begin(self, producer: Any) -> None:  # noqa: ANN401 - aiokafka is untyped
        await producer.start()
        self.trouble = ""

    async def _drain(self, producer: Any) -> None:  # noqa: ANN401
        """Send what waits until the endpoint stops; raises when the producer must be replaced."""
        assert self._wake is not None
        last = time.monotonic() - _SPACING_S
        while True:
            self._wake.clear()
            if self._waiting and not self._stopping:
                await asyncio.sleep(last + _SPACING_S - time.monotonic())
            taken = self._take()
            if taken:
                last = time.monotonic()
                await self._deliver(producer, taken)
                continue
            if self._stopping:
                return
            await self._look(producer)

    def _take(self) -> list[_Waiting]:
        """Take whole requests up to about what ``_MESSAGES_AT_ONCE`` messages hold."""
        taken: list[_Waiting] = []
        size = np.zeros(3, np.int64)
        while self._waiting and len(taken) < 512:
            size += sum((_size(piece) for piece in self._waiting[0].pieces), np.zeros(3, np.int64))
            if taken and not batches.fits(*size.tolist()):
                break
            try:
                taken.append(self._waiting.popleft())
            except IndexError:  # it gave up meanwhile
                break
        return taken

    async def _deliver(self, producer: Any, taken: list[_Waiting]) -> None:  # noqa: ANN401
        begun = time.monotonic()
        try:
            for group in self._groups(taken):
                sent = [await producer.send(self._topic, value, key=key, headers=headers)
                        for key, value, headers in group]  # fmt: skip
                await self._acknowledged(asyncio.gather(*sent))
                self._metrics.messages.inc(len(group))
        except BaseException as error:
            for waiting in taken:
                _fail(waiting, BrokerUnavailableError(f"Kafka refused: {type(error).__name__}"))
            raise
        self.trouble = ""
        self._metrics.ack_seconds.observe(time.monotonic() - begun)
        for waiting in taken:
            if waiting.done.set_running_or_notify_cancel():
                waiting.done.set_result(None)

    def _groups(self, taken: list[_Waiting]) -> Any:  # noqa: ANN401 - an iterator of lists of messages
        """Yield lists of (key, value, headers), each of few enough messages to be on their way at once."""
        by_key: dict[tuple[str, str], list[Piece]] = {}
        for waiting in taken:
            for piece in waiting.pieces:
                by_key.setdefault(piece.key, []).append(piece)
        group = []
        for key, pieces in by_key.items():
            for part in _bounded(pieces):
                group.append(self._encode(key, part))
                if len(group) == _MESSAGES_AT_ONCE:
                    yield group
                    group = []
        if group:
            yield group

    def _encode(self, key: tuple[str, str], pieces: list[Piece]) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        batch, events = batches.merge(pieces)
        interval = Interval(
            COLLECTOR, key[0], key[1], self._producer_id, self._sequence,
            min(piece.start_ns for piece in pieces), max(piece.end_ns for piece in pieces), events=events,
            lost=sum(piece.dropped for piece in pieces),
        )  # fmt: skip
        self._sequence += 1
        # A tenth of the pipeline's CPU was zstd, here and at the readers; lz4's messages are half as large again.
        value, headers = codec.encode("profile", batch, interval, "lz4")
        return f"{key[0]}/{key[1]}".encode(), value, headers

    def _tell(self) -> None:
        self._once.warning("kafka", f"{self.trouble}; clients are told to come again")


def _bounded(pieces: list[Piece]) -> list[list[Piece]]:
    """Return the pieces in groups within a message's bounds."""
    groups: list[list[Piece]] = []
    size = np.zeros(3, np.int64)
    for piece in pieces:
        size = size + _size(piece)
        if not groups or not batches.fits(*size.tolist()):
            groups.append([])
            size = _size(piece)
        groups[-1].append(piece)
    return groups


def _size(piece: Piece) -> NDArray[np.int64]:
    return np.array([piece.rows, piece.stack_bytes, piece.text_bytes], np.int64)


def _fail(waiting: _Waiting, error: Exception) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        waiting.done.set_exception(error)
