"""What travels from a decoder to the rows: a profile, whose it is, and how its types are called."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from collectors.ingest.errors import RefusedError
from collectors.ingest.labels import SERVICE, parse_name
from collectors.scrapers.pprof import Profile

DEFAULT_RATE = 100
_MAX_RATE = 1_000_000
_SCALES = ((10, 1_000_000_000), (13, 1_000_000), (16, 1_000))


@dataclass(frozen=True, slots=True)
class Upload:
    """What a request to ``/ingest`` says about its body. Times in Unix nanoseconds."""

    name: str
    labels: Mapping[str, str]
    format: str
    content_type: str
    start_ns: int
    end_ns: int
    rate: int
    spy: str
    units: str

    @property
    def owner(self) -> dict[str, str]:
        """Return the labels, with the application's name as the service unless a label names one."""
        return {SERVICE: self.name, **self.labels}


@dataclass(frozen=True, slots=True)
class SampleType:
    """What a client says about one sample type (``sample_type_config``)."""

    display: str = ""
    cumulative: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """One decoded profile and whose it is; what a decoder returns.

    ``metric`` names the family of its types (process_cpu, memory, mutex, block, ...), "" when not known. ``config``
    restricts and names the sample types; None takes all. ``before`` is the profile that cumulative types grew from.
    ``deltas`` is false where the sender counts since its start and leaves the difference to the receiver.
    """

    labels: Mapping[str, str]
    profile: Profile
    metric: str = ""
    config: Mapping[str, SampleType] | None = None
    before: Profile | None = field(default=None, repr=False)
    deltas: bool = True


def from_parameters(parameters: Mapping[str, str], content_type: str) -> Upload:
    """Read the parameters of ``/ingest``; unreadable times and rates get their defaults, as Pyroscope does it.

    Raises:
        RefusedError: 400, the name is missing or wrong.
    """
    name, labels = parse_name(parameters.get("name", ""))
    now = time.time_ns()
    start = _time(parameters.get("from", ""), now)
    return Upload(
        name,
        labels,
        parameters.get("format", ""),
        content_type,
        start,
        max(start, _time(parameters.get("until", ""), now)),
        _rate(parameters.get("sampleRate", "")),
        parameters.get("spyName", "unknown"),
        parameters.get("units", "samples"),
    )


def _rate(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text[:9]) <= _MAX_RATE else DEFAULT_RATE


def _time(text: str, now: int) -> int:
    """Return Unix time in nanoseconds; seconds, milli-, micro- or nanoseconds are told apart by their digits.

    Raises:
        RefusedError: 400, it is no number.
    """
    if not text:
        return now
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise RefusedError(400, "bad_time", f"from and until are Unix times, not {text[:32]!r}")
    return int(text) * next((scale for digits, scale in _SCALES if len(text) <= digits), 1)
