"""``push.v1.PusherService/Push``: the Connect protocol's unary call, protobuf or JSON, as Pyroscope's clients make it.

A request holds series; each has labels and samples, whose ``raw_profile`` is a pprof profile, gzipped or not.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator

from collectors.ingest import pprof_reader
from collectors.ingest.errors import RefusedError
from collectors.ingest.labels import check
from collectors.ingest.upload import Series
from collectors.scrapers import wire
from streams.schema.errors import CorruptRecordError

PATH = "/push.v1.PusherService/Push"
PROTO, JSON = "application/proto", "application/json"
MAX_SERIES = 10_000
_METRIC = "__name__"
_Raw = tuple[dict[str, str], list[bytes]]


def decode(body: bytes, content_type: str) -> list[Series]:
    """Return the series of one request.

    Raises:
        RefusedError: 400, it cannot be read or holds no profile; 415, it is of another content type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (PROTO, JSON, "application/protobuf", "application/x-protobuf"):
        raise RefusedError(415, "content_type", f"send {PROTO} or {JSON}, not {kind[:64]!r}")
    found = []
    try:
        for labels, profiles in _json(body) if kind == JSON else _proto(body):
            check(labels)
            for data in profiles:
                found.append(_one(labels, data))
                if len(found) > MAX_SERIES:
                    raise RefusedError(400, "too_large", f"more than {MAX_SERIES} profiles in one request")
    except CorruptRecordError as error:
        raise RefusedError(400, "not_profile", str(error)) from error
    if not found:
        raise RefusedError(400, "empty", "no profiles received")
    return found


def _one(labels: dict[str, str], data: bytes) -> Series:
    if not data:
        raise RefusedError(400, "empty", "a sample has no raw_profile")
    profile = pprof_reader.decode(data)
    return Series(labels, profile, labels.get(_METRIC, ""), deltas=labels.get("__delta__") == "false")


def _proto(body: bytes) -> Iterator[_Raw]:
    for series in _messages(body, 1):
        labels = {}
        for label in _messages(series, 1):
            names, values = _messages(label, 1), _messages(label, 2)
            labels[_text(names)] = _text(values)
        yield labels, [(_messages(sample, 1) or [b""])[-1] for sample in _messages(series, 2)]


def _messages(data: bytes, number: int) -> list[bytes]:
    """Return the length-delimited values of one field."""
    begins, ends = wire.top_level(data).get(number, ((), ()))
    if any(end < 0 for end in ends):
        raise CorruptRecordError(f"field {number} has the wrong wire type")
    return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]


def _text(values: list[bytes]) -> str:
    return values[-1].decode("utf-8", "replace") if values else ""


def _json(body: bytes) -> Iterator[_Raw]:
    try:
        for series in json.loads(body).get("series", []):
            labels = {str(label["name"]): str(label.get("value", "")) for label in series.get("labels", [])}
            yield (
                labels,
                [_base64(sample.get("rawProfile", sample.get("raw_profile", ""))) for sample in series["samples"]],
            )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptRecordError(f"this is no PushRequest: {type(error).__name__}: {str(error)[:100]}") from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise CorruptRecordError(f"raw_profile is no base64: {error}") from error
