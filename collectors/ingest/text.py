"""Profiles as text: ``folded`` (a stack and its count on each line) and ``lines`` (a stack on each line, counted).

Frames are separated by ``;``, root first. Cost: one Python step for each distinct line and each distinct frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import Series, Upload
from collectors.scrapers.pprof import Profile
from collectors.scrapers.pprof_tables import MAX_SAMPLES
from streams.schema import stacks
from streams.schema.stack_columns import StackColumns

KINDS: dict[str, tuple[str, str]] = {
    "cpu": ("process_cpu", "samples"),
    "itimer": ("process_cpu", "samples"),
    "wall": ("wall", "samples"),
    "exceptions": ("exceptions", "count"),
    **{name: (name, "bytes") for name in ("alloc_space", "inuse_space", "alloc_in_new_tlab_bytes",
                                          "alloc_outside_tlab_bytes")},
    **{name: (name, "count") for name in ("alloc_objects", "inuse_objects", "goroutine", "goroutines", "live",
                                          "alloc_in_new_tlab_objects", "alloc_outside_tlab_objects",
                                          "mutex_count", "block_count", "lock_count")},
    **{name: (name, "nanoseconds") for name in ("mutex_duration", "block_duration", "lock_duration")},
}  # fmt: skip
"""What may stand after the last dot of an application's name: (type, unit)."""
UNITS = {
    "samples": ("process_cpu", "samples"), "objects": ("inuse_objects", "count"), "bytes": ("inuse_space", "bytes"),
    "goroutines": ("goroutine", "count"), "lock_samples": ("block_count", "count"),
    "lock_nanoseconds": ("block_duration", "nanoseconds"), "exceptions": ("exceptions", "count"),
}  # fmt: skip
"""The ``units`` parameter, for names without a type."""


def folded(body: bytes, upload: Upload) -> list[Series]:
    """Decode ``stack count`` lines.

    Raises:
        RefusedError: 422, a line has no count.
    """
    counts: dict[str, int] = {}
    for line in _lines(body):
        stack, _, count = line.rstrip().rpartition(" ")
        if not stack or not (count.isascii() and count.isdigit()) or len(count) > 18:
            raise RefusedError(422, "not_profile", f"not a line of 'stack count': {line[:80]!r}")
        counts[stack] = counts.get(stack, 0) + int(count)
    return [named(upload, *profile_of(counts, upload))]


def lines(body: bytes, upload: Upload) -> list[Series]:
    """Decode lines of one stack each."""
    return [named(upload, *profile_of(Counter(line.rstrip() for line in _lines(body)), upload))]


def profile_of(counts: dict[str, int], upload: Upload, kind: tuple[str, str] | None = None) -> tuple[str, Profile]:
    """Return (application without its type, profile) of {stack: count}.

    Args:
        counts: stacks as ``a;b;c``, root first.
        upload: what the request says.
        kind: (type, unit) when the body says so itself; else from the application's name, else from ``units``.
    """
    if len(counts) > MAX_SAMPLES:
        raise RefusedError(422, "too_large", f"the profile has more than {MAX_SAMPLES} stacks")
    name, found = kind_of(upload)
    name_, unit = kind or found
    frames: dict[str, str] = {}
    texts: dict[str, int] = {}
    for stack, count in counts.items():
        parts = stack.split(";")
        for part in parts:
            if part not in frames:
                frames[part] = stacks.frame_text(part)
        text = stacks.join([frames[part] for part in parts])
        texts[text] = texts.get(text, 0) + count
    total = sum(texts.values())
    if total >= 1 << 63:
        raise RefusedError(422, "not_profile", "the profile's counts do not fit 63 bits")
    sampled = unit == "samples"
    profile = Profile(
        (name_,),
        ("count" if sampled else unit,),
        StackColumns.from_texts(list(texts)),
        np.fromiter(texts.values(), np.int64, len(texts)).reshape(-1, 1),
        len(counts),
        upload.start_ns,
        upload.end_ns - upload.start_ns,
        "cpu" if sampled else "",
        "nanoseconds" if sampled else "",
        1_000_000_000 // upload.rate if sampled else 0,
        "",
        name_,
    )
    return name, profile


def kind_of(upload: Upload) -> tuple[str, tuple[str, str]]:
    """Return (application's name without the type, (type, unit))."""
    name, dot, suffix = upload.name.rpartition(".")
    if dot and name and suffix in KINDS:
        return name, KINDS[suffix]
    return upload.name, UNITS.get(upload.units, UNITS["samples"])


def named(upload: Upload, name: str, profile: Profile) -> Series:
    """Return a profile with the labels of its request, under the application's name without the type."""
    return Series({**upload.owner, "service_name": upload.labels.get("service_name", name)}, profile)


def _lines(body: bytes) -> Iterable[str]:
    return (line for line in body.decode("utf-8", "replace").split("\n") if line.strip())
