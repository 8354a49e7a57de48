"""The thread that sends to Kafka, for the agent's publisher and the push endpoint: it connects, and connects again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable
from typing import Any

from runtime.kafka import answers, refusal
from runtime.log import Once
from runtime.settings import KafkaSettings
from streams.schema.errors import BrokerUnavailableError, PerfstreamError

LOOK_S = 4.0
"""How long nothing is heard of Kafka before it is asked, or its silence is called trouble."""


class Sender:
    """A thread with an event loop of its own and one idempotent producer at a time.

    A subclass says what the producer is asked for (``_options``), how it begins (``_begin``), what is sent with it
    (``_drain``, which raises when it must be replaced) and whether there is more (``_more``).
    """

    _retry_s: tuple[float, float]
    """The first pause after a failure, and the longest."""

    def __init__(self, kafka: KafkaSettings, name: str, logger: logging.Logger) -> None:
        self._kafka = kafka
        self._once = Once(logger, every_s=60.0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._work: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._stopping = False
        self.trouble = f"Kafka at {kafka.bootstrap_servers}: not connected yet"
        """Why nothing is being acknowledged, in words for a person; "" when all is well."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the sending thread; Kafka need not be there."""
        # The client reports each of its retries; what an operator needs is said here, once a minute.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        self._thread.start()
        self._ready.wait(10)

    def _more(self) -> bool:
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        raise NotImplementedError

    async def _begin(self, producer: Any) -> None:  # noqa: ANN401 - aiokafka is untyped
        await producer.start()

    async def _drain(self, producer: Any) -> None:  # noqa: ANN401
        raise NotImplementedError

    def _tell(self) -> None:
        """Log ``trouble``, once in a while."""
        raise NotImplementedError

    def _complain(self, why: str) -> None:
        self.trouble = f"Kafka at {self._kafka.bootstrap_servers}: {why}"
        self._tell()

    def _end(self, timeout_s: float) -> None:
        """Let the thread send what waits, for at most ``timeout_s`` seconds, and end it."""
        self._stopping = True
        self._signal()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            if self._loop is not None and self._work is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._work.cancel)
            self._thread.join(1.0)

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
        pause, longest = self._retry_s
        while not (self._stopping and not self._more()):
            producer = None
            try:
                producer = await self._connect()
                pause = self._retry_s[0]
                await self._drain(producer)
            except Exception as error:  # noqa: BLE001 - whatever the client raises, sending must go on
                ours = isinstance(error, PerfstreamError)
                self._complain(str(error) if ours else f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            finally:
                if producer is not None:
                    await _stop(producer)

    async def _connect(self) -> Any:  # noqa: ANN401
        from aiokafka import AIOKafkaProducer
        from aiokafka.errors import KafkaError

        options: dict[str, Any] = {
            "acks": "all",
            "enable_idempotence": True,
            "max_batch_size": 1 << 20,
            **self._options(),
            **self._kafka.client_options(),
        }
        producer = AIOKafkaProducer(**options)
        try:
            await self._begin(producer)
        except (KafkaError, OSError) as error:
            await _stop(producer)
            reason = await refusal(options)
            raise BrokerUnavailableError(reason or f"{type(error).__name__}: {error}") from error
        except BaseException:
            await _stop(producer)
            raise
        return producer

    async def _look(self, producer: Any) -> bool:  # noqa: ANN401
        """Wait for something to send; returns False when nothing came for a while, and says whether Kafka is there."""
        assert self._wake is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), LOOK_S)
            return True
        if reason := await answers(producer.client):
            self._complain(reason)
        else:
            self.trouble = ""
        return False

    async def _acknowledged(self, delivery: asyncio.Future[Any]) -> None:
        """Wait for a delivery, and complain while it takes long; raises what it failed with."""
        while not (await asyncio.wait([delivery], timeout=LOOK_S))[0]:
            self._complain("it does not acknowledge")
        delivery.result()


async def _stop(producer: Any) -> None:  # noqa: ANN401
    """Stop a producer without waiting for a broker that may never answer."""
    for part in (producer.stop, producer.client.close):
        with contextlib.suppress(Exception):
            ending: Awaitable[None] = part()
            await asyncio.wait_for(ending, 1.0)
