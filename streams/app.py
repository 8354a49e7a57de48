"""The Faust worker, and the only module that imports faust (which parses ``sys.argv`` when it is imported).

Faust reads, assigns partitions and produces; ``streams.windows`` counts. No Faust table and no changelog: the little
that must survive a crash, a ``Snapshot``, rides in the metadata of the offset commit. So offset and snapshot change in
one atomic step, and Kafka's group generation keeps a worker that lost a partition from overwriting its successor's.

Each flush, for each partition: publish what changed; wait until the broker has acknowledged all of it; commit (offset
of the oldest open window, snapshot). A crash

- before or while publishing: the commit is the old one. What was published is published again, whole and under the same
  names, by whoever reads from the old commit on.
- between acknowledgement and commit: the same.
- after the commit: open windows are rebuilt from the committed offset; closed ones are published for good.

Rebalance: a revoked partition's state is dropped; the next owner rebuilds it from the commit. A flush in flight then
may still publish, which repeats what the next owner publishes too; its commit is refused by the group's generation, or
is a true older snapshot, from which the same states follow.

Three things of Faust's are kept out of the way. Topics are declared with ``acks=False``: Faust acknowledges messages
that it skips in a rebalance even on a ``noack`` stream, and would commit past them. Messages must follow each other
without a gap: when one is missing, the broker is asked whether it still exists, and if so the worker ends rather than
count wrong. And every failure ends the process with a non-zero status, because a crashed agent leaves Faust running and
idle.

What cannot be exact: raw messages that expired before they were read (counted in ``expired_messages``), and a group
whose commit was deleted after its first messages had expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Iterable
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from runtime import kafka_records
from runtime.lag import Lag
from runtime.log import Once
from runtime.observe import Health
from streams.hotspots import Hotspots
from streams.latency import Latencies
from streams.metrics import WorkerMetrics
from streams.offsets import Offsets
from streams.publish import Result, encoded
from streams.schema import codec
from streams.schema.errors import PerfstreamError, SchemaError
from streams.schema.topics import HOTSPOTS, LATENCY_WINDOWS, RAW_LATENCIES, RAW_PROFILES, Topic, schema_of
from streams.settings import WorkerSettings
from streams.watermark import Snapshot
from streams.windows import PartitionWindows

logger = logging.getLogger("perfstream.worker")

_ANSWER_S, _SLOW_S = 6.0, 10.0
KINDS = {RAW_PROFILES.name: (Hotspots, HOTSPOTS), RAW_LATENCIES.name: (Latencies, LATENCY_WINDOWS)}
"""Raw topic: (what is counted, result topic)."""


class DeliveryError(PerfstreamError):
    """Messages that exist were not delivered in order; a restart reads them again."""


class Worker:
    """Windows of every partition assigned to this process."""

    def __init__(self, settings: WorkerSettings, health: Health, metrics: WorkerMetrics) -> None:
        self.settings, self.health, self.metrics = settings, health, metrics
        kafka_records.install()
        self.app = build_app(settings)
        self.failure: BaseException | None = None
        self.stopping = asyncio.Event()
        self.progress = 0
        self.alive_at = time.monotonic()
        self.behind = False
        self._name = f"worker-{uuid.uuid4().hex[:8]}"
        self._states: dict[TP, PartitionWindows[Any]] = {}
        self._partial_at: dict[TP, float] = {}
        self._offsets = Offsets(settings.kafka.client_options(), settings.worker.group)
        self._committed: dict[TP, tuple[int, str]] | None = None  # None: to be asked for
        self._begins: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._ends_at = 0.0
        self._late = Lag()
        health.ask("flush", self._flush_trouble)
        health.ask("lag", lambda: self._late.trouble(time.monotonic()))
        metrics.lag_seconds.set_function(lambda: self._late.seconds(time.monotonic()))
        self._loading = asyncio.Lock()
        # Cleared while results wait for Kafka: read no more than what waits already.
        self._room = asyncio.Event()
        self._room.set()
        self._once = Once(logger)
        for raw in KINDS:
            self._add_agent(raw)
        self.app.task()(self._flusher)
        self.app.on_partitions_revoked.connect(self._drop, weak=False)
        self.app.on_partitions_assigned.connect(self._drop, weak=False)

    def _add_agent(self, raw: str) -> None:
        prefix = self.settings.topic_prefix
        topic = self.app.topic(prefix + raw, key_serializer="raw", value_serializer="raw", acks=False)

        async def consume(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
            try:
                async for event in stream.noack().events():
                    await self._take(event.message)
            except Exception as error:  # noqa: BLE001 - whatever it is, the process must end
                self.fail(error)

        self.app.agent(topic, name=f"{self.settings.worker.group}.{raw}")(consume)

    def fail(self, error: BaseException) -> None:
        """End the process with an error; the first one counts."""
        if self.failure is None:
            self.failure = error
        self.stopping.set()

    async def _drop(self, *_: object, **__: object) -> None:
        for tp in self._states:
            self.metrics.forget(tp.topic, tp.partition)
        self._states.clear()
        self._begins.clear()
        self._committed = None

    # -- reading

    async def _take(self, message: Any) -> None:  # noqa: ANN401 - Faust's message
        tp, offset = message.tp, message.offset
        await self._room.wait()
        windows = await self._state(tp)
        if windows is None or message.generation_id != self.app.consumer_generation_id:
            return
        if offset > windows.next_offset:
            await self._explain_gap(tp, windows.next_offset, offset)
        try:
            _, interval, batch = codec.decode(message.headers or (), message.value, schema_of(tp.topic))
            windows.take(offset, interval, batch, round(message.timestamp * 1000) * 1_000_000)
        except SchemaError as error:
            if offset >= windows.snapshot.next_offset:
                self.metrics.bad.labels(error.reason).inc()
            self._once.warning(
                f"{tp.topic}:{error.reason}", f"record skipped: {error}", reason=error.reason, topic=tp.topic,
                partition=tp.partition, offset=offset,
            )  # fmt: skip
            windows.skip(offset)
        self.progress += 1
        await asyncio.sleep(0)

    async def _state(self, tp: TP) -> PartitionWindows[Any] | None:
        """Return a partition's windows, rebuilt from the commit when it is new; None when it was lost meanwhile."""
        if tp not in self._states:
            async with self._loading:
                generation = self.app.consumer_generation_id
                if tp not in self._states:
                    windows = await self._load(tp)
                    if generation != self.app.consumer_generation_id or self.app.rebalancing:
                        return None
                    self._states[tp] = windows
        return self._states.get(tp)

    async def _load(self, tp: TP) -> PartitionWindows[Any]:
        if tp not in self._begins:
            self._begins = await self._offsets.begins(self._assigned() | {tp})
        if self._committed is None:
            self._committed = await self._offsets.committed()
        offset, metadata = self._committed.get(tp, (0, ""))
        first = self._begins.get(tp, 0)
        snapshot = Snapshot.unpack(metadata, max(offset, first), self.settings.windows)
        if first > offset:
            # A window that stood open for so long was published long ago; half of it again would get another name.
            offset = max(first, snapshot.next_offset)
            if offset > snapshot.next_offset:
                self.metrics.expired.inc(offset - snapshot.next_offset)
                logger.error("raw messages expired before they were read", extra={"tp": str(tp), "until": offset})
        kind: Any = KINDS[tp.topic.removeprefix(self.settings.topic_prefix)][0]
        counted = kind(self.settings.windows.max_functions) if kind is Hotspots else kind()
        return PartitionWindows(counted, self.settings.windows, tp.partition, snapshot, self._name, next_offset=offset)

    async def _explain_gap(self, tp: TP, expected: int, found: int) -> None:
        """Ask the broker what follows ``expected``: control records and expired ones leave true gaps."""
        there = await self._offsets.following(tp, expected)
        if there < found:
            raise DeliveryError(f"{tp}: message {there} exists but {found} was delivered")

    # -- publishing

    def _flush_trouble(self) -> str:
        since = time.monotonic() - self.alive_at
        return f"a flush has not ended for {since:.0f} s; Kafka or this machine is slow" if since > _SLOW_S else ""

    async def _flusher(self) -> None:
        try:
            while not self.stopping.is_set():
                self.alive_at = time.monotonic()
                await asyncio.sleep(self.settings.worker.flush_s)
                await self._look_at_ends()
                started = time.monotonic()
                if await self._flush():
                    self.metrics.flush_seconds.observe(time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - what a failed flush has forgotten only a restart knows
            if self.stopping.is_set() and self.failure is None:
                # Faust's threads ended under it. What is not committed is taken in again by whoever is next.
                logger.info("the last flush was cut off by the end", extra={"error": repr(error)})
            else:
                self.fail(error)

    async def _look_at_ends(self) -> None:
        """Learn how far behind every assigned partition is, also one that delivers nothing."""
        if self.app.rebalancing:
            return
        assigned = self._assigned()
        if not assigned:
            self.behind = False
            return
        now = time.monotonic()
        if now - self._ends_at >= 5 or not assigned <= self._ends.keys():
            self._ends_at = now
            try:
                self._ends = await asyncio.wait_for(self._offsets.ends(assigned), _ANSWER_S)
            except (KafkaError, TimeoutError) as error:
                self.health.ill("kafka", f"Kafka does not say where the topics end: {error!r}")
                self._once.warning("ends", f"Kafka does not say where the topics end: {error!r}")
                return
            self.health.well("kafka")
        for tp in assigned:
            await self._state(tp)
        self.behind = any(self._lag(tp, windows) > 0 for tp, windows in self._states.items())
        for tp, windows in self._states.items():
            self._late.observe(tp, windows.next_offset, windows.next_offset + self._lag(tp, windows), now)
        self._late.keep(self._states)

    def _assigned(self) -> set[TP]:
        return {TP(*tp) for tp in self.app.consumer.assignment() if tp.topic.endswith(tuple(KINDS))}

    def _lag(self, tp: TP, windows: PartitionWindows[Any]) -> int:
        return max(0, self._ends.get(tp, 0) - windows.next_offset, (self._highwater(tp) or 0) - windows.next_offset)

    def _highwater(self, tp: TP) -> int | None:
        try:
            end: int | None = self.app.consumer.highwater(tp)
        except Exception:  # noqa: BLE001 - aiokafka refuses to answer while a partition changes hands
            return None
        return end

    async def _flush(self) -> bool:
        commits: dict[TP, tuple[int, str]] = {}
        owners = dict(self._states)
        pending: list[Any] = []
        for tp, windows in owners.items():
            if tp not in self._states or self._states[tp] is not windows:
                continue  # it left while others were published; what it had is its next owner's, figures too
            lag = self._lag(tp, windows)
            self.metrics.observe(tp.topic, tp.partition, windows, lag)
            if not windows.caught_up:
                continue
            flush = windows.flush(partials=self._partials_due(tp, windows, lag))
            result_topic = KINDS[tp.topic.removeprefix(self.settings.topic_prefix)][1]
            for result in flush.results:
                pending += await self._publish(result_topic, windows.shard, result)
            commit = (flush.commit_offset, flush.snapshot.pack(self.settings.windows))
            if self._committed is not None and self._committed.get(tp) != commit:
                commits[tp] = commit
        if pending:
            await self._acknowledged(pending)
        # A partition that was revoked, or revoked and given back, has another state now or none.
        commits = {tp: commit for tp, commit in commits.items() if self._states.get(tp) is owners[tp]}
        if commits:
            await self._commit(commits)
        if pending:
            self.progress += 1
        return bool(pending or commits)

    async def _acknowledged(self, pending: list[Any]) -> None:
        waiting = asyncio.gather(*pending)
        try:
            await asyncio.wait_for(asyncio.shield(waiting), _ANSWER_S)
        except TimeoutError:
            self.health.ill("kafka", "Kafka does not acknowledge results")
            self._room.clear()
            await waiting
        finally:
            self._room.set()

    def _partials_due(self, tp: TP, windows: PartitionWindows[Any], lag: int) -> bool:
        if not windows.unpublished_rows:
            return False
        options = self.settings.worker
        now = time.monotonic()
        age = now - self._partial_at.get(tp, 0.0)
        due = age >= (options.partial_lagging_s if lag > 1 else options.partial_s)
        if due or (lag <= 1 and windows.dirty_rows() <= options.partial_rows):
            self._partial_at[tp] = now
            return True
        return False

    async def _publish(self, topic: Topic, shard: int, result: Result) -> list[Any]:
        name = self.settings.topic_prefix + topic.name
        sent = []
        for value, headers in encoded(result):
            sent.append(await self.app.producer.send(name, str(shard).encode(), value, None, None, headers))
            await asyncio.sleep(0)
        self.metrics.result_rows.labels(result[0]).inc(result[2].num_rows)
        return sent

    async def _commit(self, commits: dict[TP, tuple[int, str]]) -> None:
        thread = self.app.consumer._thread  # noqa: SLF001 - Faust's own commit has no metadata
        offsets = {TopicPartition(tp.topic, tp.partition): commit for tp, commit in commits.items()}

        async def commit() -> None:
            await thread._ensure_consumer().commit(offsets)  # noqa: SLF001

        try:
            await asyncio.wait_for(thread.call_thread(commit), 30)
        except (KafkaError, TimeoutError) as error:
            self.health.ill("kafka", f"Kafka takes no commit: {error!r}")
            # Nothing is lost: the next flush commits more, or the partition's next owner starts further back.
            self.metrics.commit_failures.inc()
            self._once.warning("commit", f"commit failed, will be repeated: {error!r}")
        else:
            if self._committed is not None:
                self._committed |= commits


def build_app(settings: WorkerSettings) -> faust.App:
    """Return the Faust app: no tables, no web server, no topics of its own."""
    kafka, options = settings.kafka, settings.worker
    credentials = None
    connection = kafka.client_options()
    if kafka.security_protocol.startswith("SASL"):
        credentials = faust.SASLCredentials(
            username=kafka.sasl_username, password=kafka.sasl_password.reveal(), mechanism=kafka.sasl_mechanism,
            ssl_context=connection.get("ssl_context"),
        )  # fmt: skip
    elif kafka.security_protocol == "SSL":
        credentials = faust.SSLCredentials(context=connection["ssl_context"])
    return faust.App(
        options.group,
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=credentials,
        datadir=str(options.datadir),
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        autodiscover=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=32,
        broker_session_timeout=options.session_timeout_s,
        broker_heartbeat_interval=options.heartbeat_s,
        broker_request_timeout=max(30.0, options.session_timeout_s + 1),
        broker_max_poll_records=50,
        consumer_max_fetch_size=4 * 1024 * 1024,
        consumer_auto_offset_reset="earliest",
        # How soon added partitions are found.
        consumer_metadata_max_age_ms=connection.get("metadata_max_age_ms", 30_000),
        producer_metadata_max_age_ms=connection.get("metadata_max_age_ms", 30_000),
        producer_max_request_size=codec.MAX_RECORD_BYTES,
        producer_acks=-1,
        producer_linger=0,
    )


async def run(settings: WorkerSettings, health: Health, metrics: WorkerMetrics, bind: Any) -> BaseException | None:  # noqa: ANN401
    """Run until ``stopping`` is set or something fails; returns the failure. ``bind`` is given the worker."""
    worker = Worker(settings, health, metrics)
    bind(worker, asyncio.get_running_loop())
    app = worker.app
    try:
        app.finalize()
        await app.start()
        while not worker.stopping.is_set():
            if app.crashed:
                worker.fail(getattr(app, "crash_reason", None) or PerfstreamError("Faust crashed"))
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.stopping.wait(), 0.5)
    except Exception as error:  # noqa: BLE001 - reported by the caller, in one line
        worker.fail(error)
    if worker.failure is None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(app.stop(), 3)
    return worker.failure


def end(status: int, handlers: Iterable[logging.Handler] = ()) -> None:
    """End the process now: Faust's threads may wait for a broker that is gone, and nothing needs them any more."""
    for handler in (*handlers, *logging.getLogger().handlers):
        handler.flush()
    os._exit(status)
