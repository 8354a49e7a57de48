"""What happens to a request's series before they are published: identity, time, names, and growth where it is ours."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np

from collectors.ingest import batches, labels, naming
from collectors.ingest.batches import Piece
from collectors.ingest.errors import RefusedError
from collectors.ingest.metrics import Metrics
from collectors.ingest.settings import IngestSettings
from collectors.ingest.stack_ids import StackIds
from collectors.ingest.upload import Series
from collectors.scrapers.growth import Growth
from collectors.scrapers.rows import MAX_SPAN_NS, Columns

MAX_GROWING = 2048
MAX_GROWING_STACKS = 2_000_000
_LATE = "the profile's time is outside of the ingestion window"


_Key = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Taken:
    """What is published of a request; ``before`` is the state of its cumulative series, should publishing fail."""

    pieces: list[Piece] = field(default_factory=list)
    before: list[tuple[_Key, Growth]] = field(default_factory=list)


class Intake:
    """Turns series into pieces. Thread-safe.

    The state of cumulative series is bounded to ``MAX_GROWING`` series and ``MAX_GROWING_STACKS`` stacks, least
    recently seen first; a series that was forgotten begins with a new baseline.
    """

    def __init__(self, settings: IngestSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()
        self._identified = StackIds()
        self._growing: OrderedDict[_Key, tuple[Growth, int]] = OrderedDict()
        self._stacks = 0

    def take(self, found: list[Series], peer: str, too_late: int) -> Taken:
        """Return what is published of a request's series.

        Args:
            found: what its decoder returned.
            peer: the client's address: its node's name when no label says one and it is not this node.
            too_late: the status of a profile whose time is outside of the window (400 or 422).

        Raises:
            RefusedError: one of the series cannot be published; then none is.
        """
        node = self._settings.node if peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1") else peer
        whose = [labels.identity(one.labels, self._settings.cluster, node) for one in found]
        times = [self._times(one, too_late) for one in found]
        ready = [naming.columns(one, self._identified) for one in found]
        taken = Taken()
        for one, identity, (start, end), columns in zip(found, whose, times, ready, strict=True):
            published = columns if one.deltas else self._grown(one, columns, start, taken)
            piece = batches.piece(identity, published, start, end)
            if piece.dropped:
                self._metrics.dropped.inc(piece.dropped)
            if piece.rows:
                taken.pieces += batches.split(piece)
        return taken

    def put_back(self, taken: Taken) -> None:
        """Forget a request that could not be published: when it comes again, its growth counts."""
        with self._lock:
            for key, growth in reversed(taken.before):
                if key in self._growing:
                    self._growing[key] = growth, self._growing[key][1]

    def _times(self, one: Series, too_late: int) -> tuple[int, int]:
        now = time.time_ns()
        start = one.profile.time_ns or now
        options = self._settings.ingest
        if not now - options.reject_older_s * 1e9 <= start <= now + options.reject_newer_s * 1e9:
            raise RefusedError(too_late, "time", f"{_LATE}: it is {(start - now) / 1e9:+.0f} s from now")
        return start, start + min(max(1, one.profile.duration_ns), MAX_SPAN_NS)

    def _grown(self, one: Series, columns: Columns, start: int, taken: Taken) -> Columns:
        """Return the columns with the growth since the last profile in place of what counts since a start."""
        which = naming.cumulative(columns)
        if not which.any():
            return columns
        key = tuple(sorted(one.labels.items()))
        with self._lock:
            growth, before = self._growing.pop(key, (Growth(), 0))
            taken.before.append((key, copy.copy(growth)))
            grown = growth.advance(columns, one.profile.process, start)
            self._growing[key] = growth, len(columns.stacks)
            self._stacks += len(columns.stacks) - before
            while len(self._growing) > MAX_GROWING or (self._stacks > MAX_GROWING_STACKS and len(self._growing) > 1):
                self._stacks -= self._growing.popitem(last=False)[1][1]
        if grown is None:
            self._metrics.baselines.inc()
            return replace(columns, values=np.where(which[None, :], 0, columns.values))
        return replace(columns, values=np.where(which[None, :], grown.columns.values, columns.values))
