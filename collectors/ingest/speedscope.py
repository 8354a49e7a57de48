"""Speedscope's JSON (schema: www.speedscope.app/file-format-schema.json): sampled and evented profiles.

An evented profile's time between two events belongs to the stack that was open then. Cost: one Python step for each
sample or event.
"""

from __future__ import annotations

import json
from typing import Any

from collectors.ingest.errors import RefusedError
from collectors.ingest.naming import SCALES
from collectors.ingest.text import kind_of, named, profile_of
from collectors.ingest.upload import Series, Upload
from collectors.scrapers.pprof_tables import MAX_SAMPLES
from streams.schema.stacks import MAX_FRAMES

MAX_PROFILES = 64
_BAD = (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError, RecursionError)


def decode(body: bytes, upload: Upload) -> list[Series]:
    """Return one series for each unit in the file.

    Raises:
        RefusedError: 422, it is not such a file, or larger than a bound.
    """
    try:
        document = json.loads(body)
        frames = [str(frame["name"]).replace(";", ":") for frame in document["shared"]["frames"]]
        found: dict[str, dict[str, float]] = {}
        if len(document["profiles"]) > MAX_PROFILES:
            raise RefusedError(422, "too_large", f"more than {MAX_PROFILES} profiles in one file")
        for profile in document["profiles"]:
            counts = found.setdefault(str(profile.get("unit", "none")), {})
            for stack, value in _weights(profile):
                text = ";".join([frames[at] for at in stack])
                counts[text] = counts.get(text, 0) + value
    except _BAD as error:
        raise RefusedError(422, "not_profile", f"this is no speedscope file: {type(error).__name__}: "
                                               f"{str(error)[:100]}") from error  # fmt: skip
    return [_series(unit, counts, upload) for unit, counts in found.items()]


def _series(unit: str, counts: dict[str, float], upload: Upload) -> Series:
    _name, (kind, given) = kind_of(upload)
    scale = 1
    if unit == "none":
        wanted = (kind, given)
    else:
        unit, scale = SCALES.get(unit, ("count", 1))
        wanted = (kind if unit == "nanoseconds" or unit == given else "inuse_space" if unit == "bytes" else kind, unit)
    whole = {stack: round(value * scale) for stack, value in counts.items()}
    if any(value < 0 for value in whole.values()):
        raise RefusedError(422, "not_profile", "a weight of the speedscope file is negative")
    return named(upload, *profile_of(whole, upload, wanted))


def _weights(profile: dict[str, Any]) -> list[tuple[tuple[int, ...], float]]:
    if profile["type"] == "sampled":
        samples = profile["samples"]
        if len(samples) > MAX_SAMPLES:
            raise RefusedError(422, "too_large", f"the profile has more than {MAX_SAMPLES} samples")
        weights = profile.get("weights") or [1] * len(samples)
        return [(tuple(stack), float(weight)) for stack, weight in zip(samples, weights, strict=True) if stack]
    if profile["type"] != "evented":
        raise ValueError(f"profile type {str(profile['type'])[:32]!r}")
    events = profile["events"]
    if len(events) > 2 * MAX_SAMPLES:
        raise RefusedError(422, "too_large", f"the profile has more than {2 * MAX_SAMPLES} events")
    out: list[tuple[tuple[int, ...], float]] = []
    stack: list[int] = []
    last = float(profile["startValue"])
    for event in events:
        at = float(event["at"])
        if stack and at > last:
            out.append((tuple(stack), at - last))
        last = at
        if event["type"] == "O":
            stack.append(int(event["frame"]))
            if len(stack) > MAX_FRAMES:
                raise ValueError("too deep")
        elif not stack or stack.pop() != event["frame"]:
            raise ValueError("a frame is closed that is not open")
    return out
