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
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from collectors.ingest import batches
from collectors.ingest.batches import Piece
from collectors.ingest.metrics import Metrics
from runtime.kafka import answers, refusal
from runtime.log import Once
from runtime.settings import KafkaSettings
from streams.schema import codec
from streams.schema.errors import BrokerUnavailableError, PerfstreamError
from streams.schema.messages import Interval
from streams.schema.topics import RAW_PROFILES

COLLECTOR = "push"
_LOG = logging.getLogger(__name__)
_RETRY_S = (0.25, 3.0)
_LOOK_S = 4.0
_MESSAGES_AT_ONCE = 16
_SPACING_S = 0.05
"""How long after a send the next one begins, so that profiles share messages under load; the first never waits."""


@dataclass(slots=True)
class _Waiting:
    """The pieces of one request, and who waits for them."""

    pieces: Sequence[Piece]
    done: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)


class Outlet:
    """Publishes pieces. ``publish`` may be called from any thread."""

    def __init__(self, kafka: KafkaSettings, topic_prefix: str, metrics: Metrics) -> None:
        self._kafka = kafka
        self._topic = topic_prefix + RAW_PROFILES.name
        self._metrics = metrics
        self._producer_id = uuid.uuid4().hex
        self._sequence = 0
        self._waiting: deque[_Waiting] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._work: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._stopping = False
        self._once = Once(_LOG, every_s=60.0)
        self.trouble = f"Kafka at {kafka.bootstrap_servers}: not connected yet"
        """Why nothing is being acknowledged, in words for a person; "" when all is well."""
        self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)

    def start(self) -> None:
        """Start the sending thread; Kafka need not be there."""
        # The client reports each of its retries; what an operator needs is said here, once a minute.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        self._thread.start()
        self._ready.wait(10)

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
        self._stopping = True
        self._signal()
        self._thread.join(timeout_s)
        if self._thread.is_alive() and self._loop is not None and self._work is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._work.cancel)
            self._thread.join(1.0)
        for waiting in self._waiting:
            _fail(waiting, BrokerUnavailableError("the endpoint is stopping"))

    def _signal(self) -> None:
        if self._loop is not None and self._wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._work = asyncio.create_task(self._send_for_ever())
        self._ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work

    async def _send_for_ever(self) -> None:
        pause = _RETRY_S[0]
        while not (self._stopping and not self._waiting):
            producer = None
            try:
                producer = await self._connect()
                pause = _RETRY_S[0]
                await self._drain(producer)
            except Exception as error:  # noqa: BLE001 - whatever the client raises, sending must go on
                ours = isinstance(error, PerfstreamError)
                self._complain(str(error) if ours else f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RETRY_S[1])
            finally:
                if producer is not None:
                    await _stop(producer)

    async def _connect(self) -> Any:  # noqa: ANN401 - aiokafka is untyped
        from aiokafka import AIOKafkaProducer
        from aiokafka.errors import KafkaError

        options: dict[str, Any] = {
            "acks": "all",
            "enable_idempotence": True,
            "max_request_size": codec.MAX_RECORD_BYTES,
            "max_batch_size": 1 << 20,
            "retry_backoff_ms": 100,
            **self._kafka.client_options(),
        }
        producer = AIOKafkaProducer(**options)
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            await _stop(producer)
            reason = await refusal(options)
            raise BrokerUnavailableError(reason or f"{type(error).__name__}: {error}") from error
        except BaseException:
            await _stop(producer)
            raise
        self.trouble = ""
        return producer

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
            try:
                await asyncio.wait_for(self._wake.wait(), _LOOK_S)
            except TimeoutError:
                if reason := await answers(producer.client):
                    self._complain(reason)
                else:
                    self.trouble = ""

    def _take(self) -> list[_Waiting]:
        """Take whole requests up to about what ``_MESSAGES_AT_ONCE`` messages hold."""
        taken: list[_Waiting] = []
        rows = text = 0
        while self._waiting and len(taken) < 512:
            rows += sum(piece.rows for piece in self._waiting[0].pieces)
            text += sum(piece.text_bytes for piece in self._waiting[0].pieces)
            if taken and (rows > batches.MAX_ROWS or text > batches.MAX_TEXT):
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
                delivery = asyncio.ensure_future(asyncio.gather(*sent))
                while not (await asyncio.wait([delivery], timeout=_LOOK_S))[0]:
                    self._complain("it does not acknowledge")
                delivery.result()
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
        value, headers = codec.encode("profile", batch, interval)
        return f"{key[0]}/{key[1]}".encode(), value, headers

    def _complain(self, why: str) -> None:
        self.trouble = f"Kafka at {self._kafka.bootstrap_servers}: {why}"
        self._once.warning("kafka", f"{self.trouble}; clients are told to come again")


def _bounded(pieces: list[Piece]) -> list[list[Piece]]:
    """Return the pieces in groups within a message's bounds."""
    groups: list[list[Piece]] = []
    rows = text = 0
    for piece in pieces:
        rows, text = rows + piece.rows, text + piece.text_bytes
        if not groups or rows > batches.MAX_ROWS or text > batches.MAX_TEXT:
            groups.append([])
            rows, text = piece.rows, piece.text_bytes
        groups[-1].append(piece)
    return groups


def _fail(waiting: _Waiting, error: Exception) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        waiting.done.set_exception(error)


async def _stop(producer: Any) -> None:  # noqa: ANN401
    """Stop a producer without waiting for a broker that may never answer."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(producer.stop(), 1.0)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(producer.client.close(), 1.0)
