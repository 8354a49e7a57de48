"""One batch into the tables: decode, build columns, insert. Runs in a thread, apart from Kafka and the event loop."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from sinks import client as store
from sinks import rows, stacks
from sinks.ledger import Batch, Record
from sinks.metrics import Metrics
from sinks.rows import Message
from streams.schema.errors import SchemaError, StoreUnavailableError

Build = Callable[[Sequence[Message]], pa.Table]

# Raw latencies have no table of their own: the stream worker makes windows of them; their intervals are accounted for.
TABLES: Mapping[str, tuple[tuple[str, Build], ...]] = MappingProxyType(
    {
        "profile": (("samples", rows.samples), ("intervals", rows.intervals)),
        "latency": (("intervals", rows.intervals),),
        "event": (("events", rows.events), ("intervals", rows.intervals)),
        "hotspot": (("hotspots", rows.windows),),
        "latency_window": (("latency_windows", rows.windows),),
    }
)


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be decoded, and why."""

    record: Record
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch's messages by schema (in order of their offsets), and the records that are none."""

    messages: Mapping[str, Sequence[Message]]
    bad: Sequence[Bad]


def decode(batch: Batch) -> Decoded:
    """Decode all records of a batch. The answer depends on the records only, so a repeat gives the same."""
    good: dict[str, list[Message]] = defaultdict(list)
    bad, seen = [], set[int]()
    for record in batch.records:
        try:
            message = rows.decode(
                batch.topic, batch.partition, record.offset, record.timestamp * 1_000_000, record.headers, record.value
            )
        except SchemaError as error:
            bad.append(Bad(record, error.reason, str(error)))
        else:
            good[message.schema].append(rows.lean(message, seen) if message.schema == "profile" else message)
    return Decoded(good, bad)


class Writer:
    """Inserts decoded batches. Several threads may use it at the same time."""

    def __init__(self, connect: Callable[[], Any], metrics: Metrics) -> None:
        self._connect = connect
        self._client: Any = None
        self._metrics = metrics
        self._known = stacks.KnownStacks()

    def client(self) -> Any:  # noqa: ANN401
        """Return the connected client.

        Raises:
            StoreUnavailableError: nothing answers.
        """
        if self._client is None:
            self._client = self._connect()
        return self._client

    def write(self, batch: Batch, decoded: Decoded) -> None:
        """Insert what is not stored yet of a batch; ``batch.stored`` keeps what is.

        Raises:
            StoreUnavailableError: the same call may succeed later.
            BackpressureError: the same, after the time that it says.
            StoreRejectedError: the store refused the rows.
        """
        try:
            self._write(batch, decoded)
        except StoreUnavailableError:
            # What comes back may have lost what it had not yet written to disk, or be another store.
            self._known.forget()
            raise

    def _write(self, batch: Batch, decoded: Decoded) -> None:
        profiles = decoded.messages.get("profile", ())
        if profiles and "samples/profile" not in batch.stored:
            table, ids = stacks.missing(profiles, self._known, int(time.time()))
            if table is not None:
                self._insert("stacks", table, None)
                self._known.stored(ids)
        for schema, messages in decoded.messages.items():
            for name, build in TABLES[schema]:
                step = f"{name}/{schema}"
                if step in batch.stored:
                    continue
                self._insert(name, build(messages), batch.token(step))
                batch.stored.add(step)
        self._account(decoded)

    def _insert(self, name: str, table: pa.Table, token: str | None) -> None:
        if table.num_rows == 0:
            return
        begun = time.monotonic()
        sent = store.insert(self.client(), name, table, token)
        self._metrics.seconds.labels(name).observe(time.monotonic() - begun)
        self._metrics.inserts.labels(name).inc()
        self._metrics.rows.labels(name).inc(table.num_rows)
        self._metrics.bytes.labels(name).inc(sent)

    def _account(self, decoded: Decoded) -> None:
        now = time.time()
        for messages in decoded.messages.values():
            for message in messages:
                self._metrics.messages.labels(message.topic).inc()
                self._metrics.freshness.observe(max(0.0, now - message.interval.end_ns / 1e9))
                if message.clamped:
                    self._metrics.clamped.inc(message.clamped)
