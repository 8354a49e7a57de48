"""Kafka to ClickHouse, every row once.

For each partition: announce a batch (commit the old offset with the batch's end as metadata), insert it with a token
made of its range, commit its end. The group's coordinator refuses commits of a member that has lost its partitions, so
an announced batch is never announced again with another end; whoever finds the announcement inserts the same rows with
the same token, and the store keeps the first. This holds while fewer than 10,000 other inserts into the table lie
between the two (``non_replicated_deduplication_window``).

A batch of a raw topic is announced to the store as well (see ``sinks.announced``), so that a group that was reset and
reads everything again skips what the tables hold. Results need none of that: their rows replace themselves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from runtime import kafka_records
from runtime.kafka import refusal
from runtime.log import Once
from runtime.observe import Health
from sinks import client as store
from sinks import letters
from sinks.announced import Announcements
from sinks.ledger import Batch, Known, Partition, intent_end, intent_metadata
from sinks.metrics import Metrics
from sinks.monitor import Monitor
from sinks.offsets import CommittedOffsets
from sinks.settings import BatchSettings, SinkSettings
from sinks.writer import Bad, Writer, decode
from streams.schema.errors import BackpressureError, PerfstreamError, StoreRejectedError, UnavailableError
from streams.schema.topics import DEAD_LETTERS, RAW, RESULTS

log = logging.getLogger(__name__)

_POLL_MS = 100
_GRACE_S = 3.0
_METADATA_MS = 30_000
"""How often it looks for new partitions."""
_MAX_BACKOFF_S = 10.0
_REJECTED_BACKOFF_S = 30.0


def linger(settings: BatchSettings, took_s: float) -> float:
    """Return how long records wait for others after a round that took so long.

    Rounds shall take no more than a third of the time, as far as ``busy_linger_s`` allows.
    """
    return max(settings.linger_s, min(settings.busy_linger_s, 2 * took_s))


class Sink(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the sinks' group. ``run`` returns when ``stop`` is set."""

    def __init__(self, settings: SinkSettings, health: Health, metrics: Metrics) -> None:
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._once = Once(log)
        kafka_records.install()
        options = settings.kafka.client_options()
        self._consumer = AIOKafkaConsumer(
            group_id=settings.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=min(3000, settings.session_timeout_ms // 3),
            max_partition_fetch_bytes=max(64 * 1024, min(4 * 1024 * 1024, settings.batch.bytes)),
            **{"metadata_max_age_ms": _METADATA_MS, **options},
        )
        self._producer = AIOKafkaProducer(
            acks="all", max_request_size=DEAD_LETTERS.max_message_bytes, enable_idempotence=True, **options
        )
        self._offsets = CommittedOffsets(options, settings.group)
        timeout = settings.batch.insert_timeout_s
        self._writer = Writer(lambda: store.connect(settings.clickhouse, timeout_s=timeout), metrics)
        self._announcements = Announcements(self._writer.client)
        self._slots = asyncio.Semaphore(settings.batch.parallel)
        self._threads = ThreadPoolExecutor(settings.batch.parallel, thread_name_prefix="insert")
        self._raw = frozenset(settings.topic_prefix + topic.name for topic in RAW)
        self._partitions: dict[TopicPartition, Partition] = {}
        self._round: asyncio.Task[None] | None = None
        self._linger_s = settings.batch.linger_s
        self._assigned = asyncio.Event()
        self._monitor = Monitor(settings.clickhouse, health, metrics)

    async def run(self, stop: asyncio.Event) -> bool:
        """Consume until ``stop``; returns whether everything in progress was finished."""
        await self._start(stop)
        watching = asyncio.create_task(self._monitor.watch(self._producer.client, self._at_once))
        try:
            while not stop.is_set():
                await self._turn()
        finally:
            watching.cancel()
            clean = await self._settle()
            self._threads.shutdown(wait=False, cancel_futures=True)
            for part in (self._consumer.stop, self._producer.stop, self._offsets.close):
                try:
                    await asyncio.wait_for(part(), 2)
                except (KafkaError, TimeoutError, OSError) as error:
                    log.warning("not closed cleanly", extra={"error": str(error)})
        return clean

    async def _start(self, stop: asyncio.Event) -> None:
        topics = [self._settings.topic_prefix + topic.name for topic in (*RAW, *RESULTS)]
        self._consumer.subscribe(topics, listener=self)
        for part in (self._producer, self._consumer):
            while not stop.is_set():
                try:
                    await part.start()
                except (KafkaError, OSError) as error:
                    reason = await refusal(self._settings.kafka.client_options()) or str(error)
                    self._health.ill("kafka", f"Kafka cannot be used: {reason}")
                    self._once.warning("kafka", "Kafka cannot be used; trying again", error=reason)
                    await asyncio.sleep(1)
                else:
                    break
        self._health.well("kafka")

    async def _turn(self) -> None:
        try:
            got = await self._consumer.getmany(timeout_ms=_POLL_MS)
        except KafkaError as error:
            self._health.ill("kafka", str(error))
            self._once.warning("read", "reading from Kafka failed; trying again", error=str(error))
            await asyncio.sleep(_POLL_MS / 1000)
            return
        if not self._assigned.is_set():
            return  # between two assignments; the new one starts from the committed offsets
        now = time.monotonic()
        for tp, records in got.items():
            self._take(tp, records, now)
        self._monitor.stands((tp, state.begin, self._highwater(tp)) for tp, state in self._partitions.items())
        self._pause_or_resume()
        if self._round is not None and self._round.done():
            done, self._round = self._round, None
            if not done.cancelled():
                done.result()
        if self._round is None:
            limits = self._settings.batch
            ready = [
                tp
                for tp, state in self._partitions.items()
                if state.ready(now, self._linger_s, limits.rows, limits.bytes)
            ]
            if ready:
                self._round = asyncio.create_task(self._paced(ready))

    def _take(self, tp: TopicPartition, records: Sequence[Any], now: float) -> None:
        state = self._partitions.get(tp)
        if state is None:
            return
        trimmed = state.trimmed
        again = state.add(records, now)
        if again is not None:
            self._consumer.seek(tp, again)
        if state.trimmed > trimmed:
            self._metrics.trimmed.inc(state.trimmed - trimmed)
            self._once.warning(f"trimmed {tp}", "Kafka removed records before they were stored", partition=str(tp))
        highwater = self._highwater(tp)
        if highwater is not None:
            self._metrics.lag.labels(tp.topic, tp.partition).set(max(0, highwater - state.begin))

    def _at_once(self) -> None:
        """Try again now what waits for the store."""
        for state in self._partitions.values():
            state.retry_at = 0.0
            if state.batch is not None:
                state.batch.retry_at = 0.0

    def _highwater(self, tp: TopicPartition) -> int | None:
        try:
            end: int | None = self._consumer.highwater(tp)
        except IllegalStateError:  # it is changing hands
            return None
        return end

    def _pause_or_resume(self) -> None:
        limits = self._settings.batch
        waiting = sum(state.bytes for state in self._partitions.values())
        self._metrics.waiting.set(waiting)
        paused = self._consumer.paused()
        for tp, state in self._partitions.items():
            full = state.full(limits.rows, limits.bytes) or (
                waiting > limits.buffer_bytes and bool(state.bytes) and state.full(0, 0)
            )
            if full and tp not in paused:
                self._consumer.pause(tp)
            elif not full and tp in paused:
                self._consumer.resume(tp)

    async def _paced(self, ready: Sequence[TopicPartition]) -> None:
        begun = time.monotonic()
        await self._flush(ready)
        self._linger_s = linger(self._settings.batch, time.monotonic() - begun)

    async def _flush(self, ready: Sequence[TopicPartition]) -> None:
        """One round: announce the new batches in one commit, store all, commit the ends of those that are stored."""
        states = {tp: self._partitions[tp] for tp in ready}
        batches: dict[TopicPartition, Batch] = {}
        try:
            passed = await self._cut(states)
            batches = {tp: state.batch for tp, state in states.items() if state.batch is not None}
            new = {tp: batch for tp, batch in batches.items() if not batch.announced}
            if passed:
                await self._consumer.commit(passed)
                for tp, to in passed.items():
                    self._tell_lag(tp, to.offset)
                log.info("the store has these already", extra={"partitions": len(passed)})
            if new:
                await self._consumer.commit(
                    {tp: OffsetAndMetadata(b.first, intent_metadata(b.end)) for tp, b in new.items()}
                )
                for batch in new.values():
                    batch.announced = True
            refused = await self._announce(batches.values())
            results = await asyncio.gather(*(self._store(batch, refused) for batch in batches.values()))
            ended = {tp: b for (tp, b), fine in zip(batches.items(), results, strict=True) if fine}
            if ended:
                await self._consumer.commit({tp: OffsetAndMetadata(b.end, "") for tp, b in ended.items()})
                for tp, batch in ended.items():
                    states[tp].finish()
                    self._tell_lag(tp, batch.end)
            # Well only when nothing of any partition waits to be tried again.
            failing = any(each.failures or (each.batch and each.batch.failures) for each in self._partitions.values())
            if batches and all(results) and not failing and all(state.known is not None for state in states.values()):
                self._health.well("store")
            self._health.well("kafka")
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions are another member's now, or ours again after a rebalance: the commits decide.
            log.warning("a commit was refused after a rebalance", extra={"error": str(error)})
            self._assigned.clear()
            self._partitions.clear()
            await self._rejoined()
        except KafkaError as error:
            self._health.ill("kafka", str(error))
            self._once.warning("commit", "a commit failed; the batches are tried again", error=str(error))
            for batch in batches.values():
                batch.retry_at = time.monotonic() + 1.0

    def _tell_lag(self, tp: TopicPartition, done: int) -> None:
        left = (self._consumer.highwater(tp) or done) - done if tp in self._partitions else 0
        self._metrics.lag.labels(tp.topic, tp.partition).set(max(0, left))

    async def _cut(self, states: Mapping[TopicPartition, Partition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Cut a batch where none is in progress; returns what to commit where the store has everything already."""
        limits = self._settings.batch
        passed = {}
        answers = True
        for tp, state in states.items():
            if state.batch is not None:
                continue
            answers = answers and await self._learn(tp, state)
            if state.known is None:
                continue
            begin = state.begin
            if state.place():
                self._consumer.seek(tp, state.begin)
                if state.begin > begin:
                    passed[tp] = OffsetAndMetadata(state.begin, "")
                continue
            if state.cut(limits.rows, limits.bytes, time.monotonic()).announced:
                self._metrics.replays.inc()
        return passed

    async def _learn(self, tp: TopicPartition, state: Partition) -> bool:
        """Ask the store what was announced to it, once; False when it does not say, to be asked again."""
        if state.known is None:
            loop = asyncio.get_running_loop()
            ask = self._announcements.known
            try:
                state.known = await loop.run_in_executor(self._threads, ask, tp.topic, tp.partition, state.begin)
            except PerfstreamError as error:
                state.failures, state.retry_at = state.failures + 1, self._trouble(error, state.failures, str(tp))
                return False
            state.failures = 0
        return True

    async def _announce(self, batches: Iterable[Batch]) -> PerfstreamError | None:
        """Announce new batches of raw topics to the store; returns why it did not work."""
        new = [batch for batch in batches if batch.topic in self._raw and not batch.in_store]
        if new:
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._announcements.announce, new)
            except PerfstreamError as error:
                return error
            for batch in new:
                batch.in_store = True
        return None

    async def _rejoined(self) -> None:
        # A refused commit may come without a new assignment (the coordinator moved): start over from the commits then.
        try:
            await asyncio.wait_for(self._assigned.wait(), 2 * self._settings.session_timeout_ms / 1000)
        except TimeoutError:
            await self.on_partitions_assigned(self._consumer.assignment())

    async def _store(self, batch: Batch, refused: PerfstreamError | None) -> bool:
        """Decode and insert one batch; False when it has to be tried again later, as when it was not announced."""
        if refused is not None and batch.topic in self._raw and not batch.in_store:
            self._later(batch, refused)
            return False
        loop = asyncio.get_running_loop()
        async with self._slots:
            try:
                decoded = await loop.run_in_executor(self._threads, decode, batch)
                if decoded.bad and not batch.dead_sent:
                    await self._bury(batch, decoded.bad)
                    batch.dead_sent = True
                await loop.run_in_executor(self._threads, self._writer.write, batch, decoded)
            except (PerfstreamError, KafkaError) as error:
                self._later(batch, error)
                return False
        batch.records.clear()
        return True

    def _later(self, batch: Batch, error: Exception) -> None:
        batch.failures += 1
        batch.retry_at = self._trouble(error, batch.failures, batch.token("*"))

    def _trouble(self, error: Exception, failures: int, what: str) -> float:
        """Count and tell a failure; returns when to try again."""
        longest, least = _MAX_BACKOFF_S, 0.0
        if isinstance(error, BackpressureError):
            kind, advice = "busy", "the store has too much to do; Kafka holds the data"
            least = error.retry_after_s
        elif isinstance(error, UnavailableError):
            kind, advice = "unavailable", "the store does not answer; Kafka holds the data"
        elif isinstance(error, StoreRejectedError):
            longest = _REJECTED_BACKOFF_S
            kind, advice = "rejected", "the store refuses the rows; run 'perfstream migrate' or read its message"
        else:
            kind, advice = "kafka", "the dead-letter topic cannot be written"
        wait: float = max(least, min(longest, 0.25 * 2 ** min(failures, 10))) * random.uniform(1.0, 1.5)  # noqa: S311
        self._metrics.failures.labels(kind).inc()
        self._health.ill("store" if kind != "kafka" else "kafka", f"{advice}: {error}")
        self._once.warning(kind, advice, error=str(error), batch=what, retry_in_s=round(wait, 2))
        return time.monotonic() + wait

    async def _bury(self, batch: Batch, bad: Sequence[Bad]) -> None:
        """Send undecodable records to the dead-letter topic and wait until it has them; at least once each."""
        topic = self._settings.topic_prefix + DEAD_LETTERS.name
        sent = []
        for item in bad:
            key, value, headers = letters.bury(
                batch.topic, batch.partition, item.record, item.reason, item.error, DEAD_LETTERS.max_message_bytes
            )
            sent.append(await self._producer.send(topic, value, key, headers=headers))
            self._metrics.dead.labels(item.reason).inc()
            self._once.warning(
                f"dead {item.reason}", "a record went to the dead letters", record=key.decode(), error=item.error
            )
        await asyncio.gather(*sent)

    async def on_partitions_revoked(self, revoked: object) -> None:  # noqa: ARG002 - all are revoked, always
        """Finish the round if it ends soon, else leave it to the next owner, who finds the announcements."""
        await self._settle()
        self._assigned.clear()
        self._partitions.clear()

    async def on_partitions_assigned(self, assigned: Any) -> None:  # noqa: ANN401 - a collection of partitions
        """Start each partition at its committed offset, with the batch that was announced there, if any."""
        assigned = set(assigned)
        committed = await self._offsets.read(assigned)
        begins = {tp: offset for tp, (offset, _) in committed.items()}
        fresh = [tp for tp in assigned if tp not in begins]
        while fresh:
            try:
                begins |= await self._consumer.beginning_offsets(fresh)
                break
            except KafkaError as error:
                log.warning("beginning offsets cannot be read; trying again", extra={"error": str(error)})
                await asyncio.sleep(0.5)
        self._partitions = {
            tp: Partition(tp.topic, tp.partition, begins[tp], intent_end(*committed[tp]) if tp in committed else None)
            for tp in assigned
        }
        for tp, state in self._partitions.items():
            if tp.topic not in self._raw:
                state.known = Known.nothing()
        for tp, begin in begins.items():
            self._consumer.seek(tp, begin)
        self._metrics.rebalances.inc()
        self._metrics.lag.clear()
        self._assigned.set()
        log.info("partitions assigned", extra={"partitions": len(assigned)})

    async def _settle(self) -> bool:
        """Wait a little for the round in progress; cancel it when it takes longer. Returns whether it ended."""
        current = self._round
        if current is None or current is asyncio.current_task():
            return True
        _, waiting = await asyncio.wait({current}, timeout=_GRACE_S)
        if waiting:
            current.cancel()
            await asyncio.wait({current}, timeout=1)
        self._round = None
        return not waiting
