"""Decodes OTLP profiles (opentelemetry-proto ``profiles.v1development``), protobuf or JSON, into series.

One series for each profile of each resource; the resource's attributes are its labels, and a process without
``service.name`` is called by its executable. Stacks are written once for the whole request. A sample without values
counts its time stamps. Cost: about 12 ms for 1,000 samples among 3,000 functions; JSON goes through protobuf's own
parser.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from collectors.ingest.labels import ALIASES
from collectors.ingest.otlp_stacks import Dictionary, messages, parts, ranges
from collectors.ingest.upload import Series
from collectors.scrapers import wire
from collectors.scrapers.pprof import MAX_BYTES, Profile, inflate
from collectors.scrapers.pprof_tables import MAX_SAMPLES
from streams.schema.errors import CorruptRecordError
from streams.schema.stack_columns import StackColumns

PATH = "/v1development/profiles"
PROTO, JSON = "application/x-protobuf", "application/json"
MAX_PROFILES = 10_000
MAX_JSON = 8 * 1024 * 1024
NAMES: Mapping[tuple[str, str], str] = {
    ("events", "nanoseconds"): "offcpu",
    ("off_cpu", "nanoseconds"): "offcpu",
    ("cpu", "nanoseconds"): "process_cpu",
}
"""Sample types as OpenTelemetry's profiler writes them, and what rows carry."""
UNKNOWN = "unknown_service"
_EXECUTABLE = ("process.executable.name", "process.executable.path", "process.command")
_KEPT = frozenset(name for names in ALIASES.values() for name in names) | frozenset(_EXECUTABLE)
_MAX_SUM = float(1 << 62)
_FIXED64 = struct.Struct("<Q")
_NO_STACKS = StackColumns.from_texts([])

Column = NDArray[np.int64]


def decode(data: bytes, content_type: str = PROTO, bound: int = MAX_BYTES) -> list[Series]:
    """Return the series of one ``ExportProfilesServiceRequest``, gzipped or not; none when it holds no sample.

    Raises:
        CorruptRecordError: these bytes are no such request, or exceed a bound.
    """
    if content_type.partition(";")[0].strip().lower() == JSON:
        raw = _from_json(inflate(data, min(bound, MAX_JSON)))
    else:
        raw = inflate(data, bound)
    try:
        return _Decoder(raw).series()
    except CorruptRecordError as error:
        raise CorruptRecordError(f"these are no OTLP profiles: {error}") from error


def answer(content_type: str) -> tuple[str, bytes]:
    """Return (content type, body) of the answer to a request that was taken whole."""
    return (JSON, b"{}") if content_type.partition(";")[0].strip().lower() == JSON else (PROTO, b"")


def _from_json(text: bytes) -> bytes:
    from google.protobuf import json_format
    from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest

    try:
        message = json_format.Parse(text, ExportProfilesServiceRequest(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise CorruptRecordError(f"these are no OTLP profiles in JSON: {str(error)[:200]}") from error
    return bytes(message.SerializeToString())


class _Decoder:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._view = np.frombuffer(raw, np.uint8)
        top = parts(raw, 0, len(raw))
        self._resources = ranges(top, 1)
        begin, end = ranges(top, 2)
        if len(begin) > 1:
            raise CorruptRecordError("there is more than one dictionary")
        self._dictionary = Dictionary(raw, self._view, *((int(begin[0]), int(end[0])) if len(begin) else (0, 0)))

    def series(self) -> list[Series]:
        resources = wire.walk(self._view, *self._resources)
        labels = self._labels(messages(resources, 1), len(self._resources[0]))
        scopes = messages(resources, 2)
        inner = wire.walk(self._view, scopes.begin, scopes.end)
        profiles = messages(inner, 2)
        if len(profiles.owner) > MAX_PROFILES:
            raise CorruptRecordError(f"there are more than {MAX_PROFILES} profiles")
        heads = [
            self._head(begin, end) for begin, end in zip(profiles.begin.tolist(), profiles.end.tolist(), strict=True)
        ]
        owner = scopes.owner[profiles.owner].tolist()
        timed = {(who, head.types[0]) for who, (head, _) in zip(owner, heads, strict=True) if head.units[0] != "count"}
        place, stacks = self._samples([samples for _, samples in heads])
        found = []
        for number, (head, _) in enumerate(heads):
            stack, values = place[number]
            # Counts beside a time of the same samples are left out: rows carry value and period.
            doubled = (
                head.types[0] == "samples" and (owner[number], NAMES.get((head.period_type, "nanoseconds"))) in timed
            )
            if len(stack) and not doubled:
                profile = replace(
                    head,
                    stacks=stacks.take(stack),
                    values=values[:, :1],
                    samples=int(values[:, 1].sum()),
                )
                found.append(Series(labels[owner[number]], profile))
        return found

    def _labels(self, resources: wire.Fields, count: int) -> list[dict[str, str]]:
        """Return the labels of each resource."""
        of_resource = messages(wire.walk(self._view, resources.begin, resources.end), 1)
        pairs = wire.walk(self._view, of_resource.begin, of_resource.end)
        total = len(of_resource.owner)
        keys = self._texts(messages(pairs, 1), pairs.scalar(3, total), total)
        given = messages(pairs, 2)
        values = wire.walk(self._view, given.begin, given.end)
        texts = self._texts(messages(values, 1), values.scalar(8, len(given.owner)), len(given.owner))
        numbers = {
            number: str(value)
            for number, value in zip(
                values.only(3).owner.tolist(), values.only(3).value.view(np.int64).tolist(), strict=True
            )
        }
        found: list[dict[str, str]] = [{} for _ in range(count)]
        whose = resources.owner[of_resource.owner]
        for number, pair in enumerate(given.owner.tolist()):
            value = texts[number] or numbers.get(number, "")
            if keys[pair] in _KEPT and value:
                found[whose[pair]][keys[pair]] = value
        for labels in found:
            executable = next((labels[name] for name in _EXECUTABLE if labels.get(name)), "")
            if not any(labels.get(name) for name in ALIASES["service"]):
                labels["service.name"] = executable.rsplit("/", 1)[-1] or UNKNOWN
            for name in _EXECUTABLE:
                labels.pop(name, None)
        return found

    def _texts(self, fields: wire.Fields, index: Column, count: int) -> list[str]:
        """Return one text for each message: written out, or by its place in the string table."""
        found = [self._dictionary.string(one) if one else "" for one in index.tolist()] or [""] * count
        for owner, begin, end in zip(fields.owner.tolist(), fields.begin.tolist(), fields.end.tolist(), strict=True):
            if end > begin:
                found[owner] = self._raw[begin:end].decode("utf-8", "replace")
        return found

    def _head(self, begin: int, end: int) -> tuple[Profile, tuple[Column, Column]]:
        """Return (one profile without its stacks, where its samples are)."""
        fixed: dict[int, int] = {}
        found = parts(self._raw, begin, end, fixed)
        kind, unit = self._kind(found, 1)
        period_type, period_unit = self._kind(found, 5)
        none = np.zeros((0, 1), np.int64)
        time_ns = 0
        if 3 in fixed and fixed[3] + 8 <= end:
            time_ns = min(_FIXED64.unpack_from(self._raw, fixed[3])[0], (1 << 63) - 1)
        duration, period = max(0, _number(found, 4)), max(0, _number(found, 6))
        name = NAMES.get((kind, unit), kind)
        if not name:
            raise CorruptRecordError("a profile has no sample type")
        head = Profile(
            (name,), (unit,), _NO_STACKS, none, 0, time_ns, duration, period_type, period_unit, period, "", name
        )  # fmt: skip
        return head, ranges(found, 2)

    def _kind(self, found: dict[int, tuple[Column, Column]], number: int) -> tuple[str, str]:
        begin, end = ranges(found, number)
        if len(begin) == 0:
            return "", ""
        fields = wire.walk(self._view, begin[-1:], end[-1:])
        name, unit = int(fields.scalar(1, 1)[0]), int(fields.scalar(2, 1)[0])
        return self._dictionary.string(name), self._dictionary.string(unit)

    def _samples(self, given: list[tuple[Column, Column]]) -> tuple[list[tuple[Column, Column]], StackColumns]:
        """Return (for each profile its stacks, as places in the next, and (value, events) of each; all stacks)."""
        counts = np.array([len(begin) for begin, _ in given], np.int64)
        total = int(counts.sum())
        if total > MAX_SAMPLES:
            raise CorruptRecordError(f"there are more than {MAX_SAMPLES} samples")
        none = (np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
        if total == 0:
            return [none] * len(given), _NO_STACKS
        begin, end = (np.concatenate([pair[side] for pair in given]) for side in (0, 1))
        fields = wire.walk(self._view, begin, end)
        owner, value = wire.repeated(self._view, fields.only(4))
        value = value.view(np.int64)
        stamps = self._stamps(fields.only(5), total)
        has_value = np.bincount(owner, minlength=total)
        if np.abs(value.astype(np.float64)).sum() > _MAX_SUM:
            raise CorruptRecordError("the values are too large")
        amount = np.zeros(total, np.int64)
        np.add.at(amount, owner, value)
        amount = np.where(has_value > 0, amount, stamps)
        events = np.maximum(np.maximum(stamps, has_value), 1)
        wanted, stack = np.unique(fields.scalar(1, total), return_inverse=True)
        stacks, which = self._dictionary.stacks(wanted)
        profile = np.repeat(np.arange(len(given)), counts)
        keys, row = np.unique(profile * len(stacks) + which[stack.reshape(-1)], return_inverse=True)
        summed = np.zeros((len(keys), 2), np.int64)
        np.add.at(summed, row.reshape(-1), np.stack((amount, events), axis=1))
        edges = np.searchsorted(keys, np.arange(len(given) + 1) * len(stacks))
        return [
            (keys[at:to] % len(stacks), summed[at:to])
            for at, to in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ], stacks

    @staticmethod
    def _stamps(fields: wire.Fields, total: int) -> Column:
        """Return how many time stamps each sample has."""
        sizes = fields.end - fields.begin
        packed = fields.wire == wire.LENGTH
        if np.any(~packed & (fields.wire != wire.FIXED64)) or np.any(sizes % 8):
            raise CorruptRecordError("a sample's time stamps have the wrong wire type")
        found = np.zeros(total, np.int64)
        np.add.at(found, fields.owner, sizes // 8)
        return found


def _number(found: dict[int, tuple[Column, Column]], number: int) -> int:
    values, ends = found.get(number, (np.zeros(1, np.int64), np.full(1, -1)))
    if ends[-1] != -1:
        raise CorruptRecordError(f"field {number} of a profile has the wrong wire type")
    return int(values[-1])
