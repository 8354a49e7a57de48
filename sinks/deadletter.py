"""Reading the dead-letter topic, and publishing its records again.

A replay counts once, whatever ends it: before a record is published, a note in the dead-letter topic announces where to
look for it (topic, partition, that partition's end); after, another says where it is. Who finds the first note without
the second looks there for the record, known by its header, before publishing it. Not covered: two replays of one letter
at the same time. Rows more than a week old are clamped like any other's (see ``streams.schema.clocks``).

Memory: what is asked for without payloads, and 32 MB of payloads while replaying. The topic has one partition.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from sinks import letters, rows
from sinks.letters import Letter, Note
from streams.schema.errors import BrokerUnavailableError, SchemaError, TopicMismatchError, UsageError
from streams.schema.topics import DEAD_LETTERS

_STALLED_S = 20.0
_BATCH_BYTES = 32 * 1024 * 1024
_BATCH_LETTERS = 100
_REMEMBERED = 100_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; empty means any. ``topic`` may lack the prefix; ``since_ms`` is when it was buried."""

    reason: str = ""
    topic: str = ""
    since_ms: int = 0
    places: frozenset[str] = frozenset()

    def takes(self, letter: Letter) -> bool:
        """Return whether a letter is meant."""
        return (
            (not self.reason or letter.reason == self.reason)
            and (not self.topic or letter.topic == self.topic or letter.topic.endswith("." + self.topic))
            and letter.time_ms >= self.since_ms
            and (not self.places or letter.place in self.places or str(letter.offset) in self.places)
        )


@dataclass(slots=True)
class Entry:
    """A letter without its payload, and what is known of its replay."""

    letter: Letter
    note: Note | None = None

    @property
    def replayed(self) -> str:
        """Return where it was published again; "" when it was not, "?" when it is not known."""
        return "" if self.note is None else self.note.at or "?"

    def learn(self, note: Note) -> None:
        """Take in a later note; of announcements of one place the first says from where to look."""
        known = self.note
        if known is None or note.at or (known.topic, known.partition) != (note.topic, note.partition):
            self.note = note


@dataclass(slots=True)
class Count:
    """How many letters of one kind there are, of how many bytes, and when."""

    letters: int = 0
    bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    error: str = ""


class DeadLetters:
    """The dead-letter topic, opened. All methods raise ``BrokerUnavailableError`` when Kafka stops answering."""

    def __init__(self, consumer: Any, topic: str, options: Mapping[str, Any], progress: Progress) -> None:  # noqa: ANN401
        from aiokafka import TopicPartition

        self._consumer = consumer
        self._options = options
        self._progress = progress
        self._tp = TopicPartition(topic, 0)

    async def newest(self, which: Filter, n: int, *, exact: bool = False) -> list[Entry]:
        """Return the newest ``n`` letters of those meant, the oldest first; each place once.

        Raises:
            UsageError: there are more, and ``exact`` allows none to be left out.
        """
        kept: OrderedDict[str, Entry] = OrderedDict()
        async for found in self._scan(which.since_ms):
            if isinstance(found, Note):
                if found.place in kept:
                    kept[found.place].learn(found)
            elif which.takes(found) and found.place not in kept:
                kept[found.place] = Entry(replace(found, value=None))
                if len(kept) > n:
                    if exact:
                        raise UsageError(f"more than {n} letters are meant; narrow it with --reason, --topic, --since")
                    kept.popitem(last=False)
        return list(kept.values())

    async def counts(self, which: Filter, by: str) -> dict[str, Count]:
        """Return how many letters are meant by ``reason`` or ``topic``; what was buried twice counts once."""
        counts: dict[str, Count] = {}
        seen: OrderedDict[str, None] = OrderedDict()
        async for found in self._scan(which.since_ms):
            if isinstance(found, Note) or not which.takes(found) or found.place in seen:
                continue
            seen[found.place] = None
            if len(seen) > _REMEMBERED:
                seen.popitem(last=False)
            count = counts.setdefault(str(getattr(found, by)), Count(first_ms=found.time_ms))
            count.letters += 1
            count.bytes += found.size
            count.last_ms = found.time_ms
            count.error = found.error
        return counts

    async def whole(self, offset: int) -> Letter:
        """Return one letter with its payload.

        Raises:
            UsageError: no letter stands at that offset.
        """
        found = await self._at(offset)
        if not isinstance(found, Letter):
            raise UsageError(f"no letter stands at offset {offset}")
        return found

    async def replay(self, entries: Sequence[Entry], to: str, *, force: bool) -> tuple[dict[str, str], dict[str, str]]:
        """Publish letters again, each once; returns ({place: where it is now}, {place: why it was left}).

        Args:
            entries: which; those known to be replayed are passed over.
            to: another topic; "" for the one that each came from.
            force: also those that still do not decode.
        """
        from aiokafka import AIOKafkaProducer

        done: dict[str, str] = {}
        left: dict[str, str] = {}
        existing = await self._consumer.topics()
        options = {"max_request_size": DEAD_LETTERS.max_message_bytes, "enable_idempotence": True, "acks": "all"}
        async with _answering(), _open(AIOKafkaProducer(**options | dict(self._options))) as producer:
            batch: list[tuple[Entry, Letter]] = []
            size = 0
            for number, entry in enumerate(entries):
                self._progress(number, len(entries))
                if entry.note is not None and entry.note.at:
                    left[entry.letter.place] = f"replayed already, as {entry.note.at}"
                    continue
                if (to or entry.letter.topic) not in existing:
                    left[entry.letter.place] = f"there is no topic {to or entry.letter.topic}"
                    continue
                letter = await self.whole(entry.letter.offset)
                if why := unfit(letter, to, force=force):
                    left[letter.place] = why
                    continue
                batch.append((entry, letter))
                size += len(letter.value or b"")
                if size > _BATCH_BYTES or len(batch) >= _BATCH_LETTERS:
                    done |= await self._publish(producer, batch, to)
                    batch, size = [], 0
            done |= await self._publish(producer, batch, to)
        return done, left

    async def _publish(self, producer: Any, batch: Sequence[tuple[Entry, Letter]], to: str) -> dict[str, str]:  # noqa: ANN401
        found = {e.letter.place: await self._search(e.note) for e, _ in batch if e.note is not None}
        new = {
            letter.place: (letter, await self._target(producer, letter, to))
            for e, letter in batch
            if not found.get(letter.place)
        }
        ends = await self._consumer.end_offsets({tp for _, tp in new.values()}) if new else {}
        notes = [letters.announced(place, tp.topic, tp.partition, ends[tp]) for place, (_, tp) in new.items()]
        await self._note(producer, notes)
        sent = [
            await producer.send(
                tp.topic, letter.value, letter.key, partition=tp.partition, headers=letters.again(letter)
            )
            for letter, tp in new.values()
        ]
        at = {place: where for place, where in found.items() if where}
        for place, answer in zip(new, await asyncio.gather(*sent), strict=True):
            at[place] = f"{answer.topic}:{answer.partition}:{answer.offset}"
        await self._note(producer, [letters.done(place, where) for place, where in at.items()])
        return at

    async def _note(self, producer: Any, notes: Sequence[tuple[bytes, letters.Headers]]) -> None:  # noqa: ANN401
        sent = [
            await producer.send(self._tp.topic, b"", key, partition=0, headers=list(headers)) for key, headers in notes
        ]
        await asyncio.gather(*sent)

    async def _target(self, producer: Any, letter: Letter, to: str) -> Any:  # noqa: ANN401
        from aiokafka import TopicPartition

        topic = to or letter.topic
        partitions = await producer.partitions_for(topic)
        return TopicPartition(topic, letter.partition % max(1, len(partitions)))

    async def _search(self, note: Note) -> str:
        """Return where a replay that was announced has been published; "" when it has not."""
        from aiokafka import TopicPartition

        tp = TopicPartition(note.topic, note.partition)
        async for record in self._records(tp, note.begin):
            if letters.is_replay_of(record.headers, note.place):
                return f"{tp.topic}:{tp.partition}:{record.offset}"
        return ""

    async def _at(self, offset: int) -> Letter | Note | None:
        async for record in self._records(self._tp, offset):
            return letters.read(record) if record.offset == offset else None
        return None

    async def _scan(self, since_ms: int) -> AsyncIterator[Letter | Note]:
        begin = 0
        if since_ms:
            async with _answering():
                times = await self._consumer.offsets_for_times({self._tp: since_ms})
                at = times.get(self._tp)
                begin = at.offset if at is not None else (await self._consumer.end_offsets([self._tp]))[self._tp]
        async for record in self._records(self._tp, begin):
            found = letters.read(record)
            if found is not None:
                yield found

    async def _records(self, tp: Any, begin: int) -> AsyncIterator[Any]:  # noqa: ANN401
        """Yield a partition's records from an offset up to its present end."""
        consumer = self._consumer
        async with _answering():
            if tp not in consumer.assignment():
                consumer.assign([tp])
            first = (await consumer.beginning_offsets([tp]))[tp]
            end = (await consumer.end_offsets([tp]))[tp]
        begin = max(begin, first)
        if begin >= end:
            return
        consumer.seek(tp, begin)
        at, moved = begin, time.monotonic()
        while at < end:
            async with _answering():
                got = await consumer.getmany(tp, timeout_ms=500, max_records=64)
                at = await consumer.position(tp)
            if got:
                moved = time.monotonic()
            elif time.monotonic() - moved > _STALLED_S:
                raise BrokerUnavailableError(f"Kafka sends nothing of {tp.topic} from offset {at} on")
            for record in got.get(tp, ()):
                if record.offset < end:
                    yield record
            if tp == self._tp:
                self._progress(at - begin, end - begin)


def unfit(letter: Letter, to: str, *, force: bool) -> str:
    """Return why a letter cannot be replayed; "" when it can."""
    if letter.cut:
        return f"it is not whole: {letter.cut}"
    headers = [(name, item or b"") for name, item in letter.headers]
    try:
        rows.decode(to or letter.topic, letter.partition, 0, time.time_ns(), headers, letter.value)
    except SchemaError as error:
        return "" if force else f"it still does not decode: {error}"
    return ""


@asynccontextmanager
async def opened(options: Mapping[str, Any], prefix: str, progress: Progress) -> AsyncIterator[DeadLetters]:
    """Open the dead-letter topic.

    Args:
        options: keyword arguments for aiokafka (see ``KafkaSettings.client_options``).
        prefix: stands before each topic's name.
        progress: called with (done, of how many) while something is read or published.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
        TopicMismatchError: there is no such topic.
    """
    from aiokafka import AIOKafkaConsumer

    from runtime import kafka_records

    kafka_records.install()
    # What cannot be reached is said once, by us.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    topic = prefix + DEAD_LETTERS.name
    settings = {
        "request_timeout_ms": 10_000,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        # Letters are read one by one: what waits at the end of the topic for more must not keep the next one waiting.
        "fetch_max_wait_ms": 20,
    }
    async with (
        _answering(str(options.get("bootstrap_servers", ""))),
        _open(AIOKafkaConsumer(**settings | dict(options))) as consumer,
    ):
        if topic not in await consumer.topics():
            raise TopicMismatchError(
                f"there is no topic {topic}; run 'perfstream topics apply', or give --topic-prefix"
            )
        yield DeadLetters(consumer, topic, options, progress)


@asynccontextmanager
async def _open(client: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - aiokafka is untyped
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def _answering(where: str = "") -> AsyncIterator[None]:
    from aiokafka.errors import KafkaError

    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        at = f" at {where}" if where else ""
        raise BrokerUnavailableError(f"Kafka{at} does not answer ({error}); check --kafka") from error
