"""User space of ``bpf/stack_count.h``: switch buffers, drain, name the stacks, build rows of the ``profile`` schema.

Cost of a drain: a few system calls, and for each distinct stack a dictionary look-up (seen before) or its symbolising.
While an interval runs, a thread looks once a second which processes are new, so that their names are known when they
have exited before the interval ends; a process that lives less than that shows as ``[exited]``.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.base import Batch, WorkloadResolver
from collectors.bpf.buffers import wait_until_unused
from collectors.bpf.loader import Programs
from collectors.interpreted import Seen, spread
from collectors.symbols import Symbolizer
from runtime.log import Once
from streams.schema import stack_columns
from streams.schema.messages import PROFILE, WORKLOAD
from streams.schema.stacks import stack_id

FRAMES = 127
POLL_S = 1.0
CONTROL_ACTIVE, CONTROL_THRESHOLD, CONTROL_PERIOD = 0, 1, 2
_LOST_COUNTERS = 3
_KEY = np.dtype([("user", "<u8"), ("kernel", "<u8"), ("cgroup", "<u8"), ("tgid", "<u8")])
_VALUE = np.dtype([("count", "<u8"), ("sum", "<u8"), ("comm", "S16")])
_STACK = np.dtype([("ips", "<u8", (FRAMES,))])

Addresses = NDArray[np.uint64]
_once = Once(logging.getLogger(__name__))


def entries(per_interval: float) -> int:
    """Return how many distinct stacks to make room for: a power of two over what one interval can hold."""
    wanted = max(2048, min(16384, int(per_interval) * 2))
    return 1 << (wanted - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Drained:
    """What one interval counted. ``users`` and ``kernels`` are leaf first, parallel to ``keys`` and ``values``."""

    keys: NDArray[np.void]
    values: NDArray[np.void]
    users: list[Addresses]
    kernels: list[Addresses]
    lost: int

    def only(self, rows: NDArray[np.int64]) -> Drained:
        """Return these rows alone."""
        users, kernels = [self.users[row] for row in rows], [self.kernels[row] for row in rows]
        return replace(self, keys=self.keys[rows], values=self.values[rows], users=users, kernels=kernels)


class StackCounts:
    """Counts by stack of one set of loaded programs."""

    def __init__(
        self,
        programs: Programs,
        symbolizer: Symbolizer,
        workloads: WorkloadResolver,
        each_poll: Callable[[], object] | None = None,
    ) -> None:
        self._programs = programs
        self._symbolizer = symbolizer
        self._workloads = workloads
        self._active = 0
        self._lost = 0
        self._each_poll = each_poll
        self._seen: set[int] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="stack-count", daemon=True)
        self._thread.start()

    def set_control(self, index: int, value: int) -> None:
        """Set a control word of the kernel's side."""
        self._programs.maps["control"].update(struct.pack("<I", index), struct.pack("<Q", value))

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self.look_for_new()
            except Exception as error:  # noqa: BLE001 - a look ahead must not end the collector; the drain will tell
                _once.warning("poll", "cannot look for new processes", error=str(error))

    def look_for_new(self) -> None:
        """Read names and identity of processes that the running interval has seen for the first time."""
        with self._lock:
            if self._each_poll is not None:
                self._each_poll()
            keys, values = self._programs.maps[f"counts{self._active}"].items(_KEY, _VALUE)
        new = np.array([pid for pid in np.unique(keys["tgid"]).tolist() if pid not in self._seen], np.uint32)
        if not len(new):
            return
        self._seen.update(new.tolist())
        self._symbolizer.prefetch(new.tolist())
        _, first = np.unique(keys["tgid"], return_index=True)
        first = first[np.isin(keys["tgid"][first], new)]
        self._workloads.columns(new, keys["cgroup"][first], _texts(values["comm"][first]))

    def drain(self, between: Callable[[], object] | None = None) -> Drained:
        """Switch buffers and return what the one that was filled holds.

        Args:
            between: called when the new buffer is in use: the place to change a rate.
        """
        with self._lock:
            old = self._active
            self._active = 1 - old
            self.set_control(CONTROL_ACTIVE, self._active)
            if between is not None:
                between()
            wait_until_unused(self._programs.maps["users"], old)
            keys, values = self._programs.maps[f"counts{old}"].drain(_KEY, _VALUE)
            hashes, stacks = self._programs.maps[f"stacks{old}"].drain("<u8", _STACK)
            self._seen.clear()
        table = _StackTable(hashes, stacks["ips"])
        total = sum(self._programs.maps["lost"].total(index) for index in range(_LOST_COUNTERS))
        total += self._programs.missed()
        lost, self._lost = total - self._lost, total
        return Drained(keys, values, table.stacks(keys["user"]), table.stacks(keys["kernel"]), lost)

    def batch(
        self,
        drained: Drained,
        amounts: NDArray[np.int64],
        kind: str,
        period: int,
        start_ns: int,
        seen: Mapping[int, Seen] | None = None,
    ) -> Batch:
        """Return rows of the ``profile`` schema, one for each (workload, stack).

        Args:
            drained: what ``drain`` returned.
            amounts: the value of each of its counts, in nanoseconds, shape (n,).
            kind: the profile's type.
            period: the true sampling period in nanoseconds, 0 when not sampled.
            start_ns: start of the interval, Unix time.
            seen: stacks that stand in for those of these processes.
        """
        events = int(drained.values["count"].sum(dtype=np.uint64))
        drained, amounts, stack_of, stacks = self._stacks(drained, amounts, seen or {})
        columns = self._workloads.columns(
            drained.keys["tgid"].astype(np.uint32), drained.keys["cgroup"], _texts(drained.values["comm"])
        )
        first, sums = _merge([columns[name].indices.to_numpy() for name in WORKLOAD] + [stack_of], amounts)
        rows, take = len(first), pa.array(first, pa.int64())
        arrays = [pa.array(np.full(rows, start_ns, np.int64))]
        arrays += [columns[name].take(take) for name in WORKLOAD]
        arrays += [_constant(kind, rows), _constant("nanoseconds", rows)]
        dictionary = stack_columns.entries([text for _, text in stacks], [number for number, _ in stacks])
        arrays.append(pa.DictionaryArray.from_arrays(pa.array(stack_of[first], pa.int32()), dictionary))
        arrays += [pa.array(sums), pa.array(np.full(rows, period, np.int64))]
        return Batch(pa.RecordBatch.from_arrays(arrays, schema=PROFILE), events, drained.lost)

    def _stacks(
        self, drained: Drained, amounts: NDArray[np.int64], seen: Mapping[int, Seen]
    ) -> tuple[Drained, NDArray[np.int64], NDArray[np.int32], list[tuple[int, str]]]:
        """Return rows, their amounts and stacks: sampled ones, or those seen, which share their process's amount."""
        tgids = drained.keys["tgid"]
        there = [pid for pid in seen if np.any(tgids == pid)]
        if not there:
            return drained, amounts, *self._name(drained)
        kept = np.flatnonzero(~np.isin(tgids, there))
        stack_of, stacks = self._name(drained.only(kept))
        number = {text: at for at, (_id, text) in enumerate(stacks)}
        rows, parts, places = [kept], [amounts[kept]], [stack_of]
        for pid in there:
            told, of_pid = seen[pid], np.flatnonzero(tgids == pid)
            rows.append(np.full(len(told.texts), of_pid[0]))
            parts.append(spread(int(amounts[of_pid].sum()), told.counts))
            places.append(np.array([number.setdefault(text, len(number)) for text in told.texts], np.int32))
        stacks += [(stack_id(text), text) for text in list(number)[len(stacks) :]]
        return drained.only(np.concatenate(rows)), np.concatenate(parts), np.concatenate(places), stacks

    def _name(self, drained: Drained) -> tuple[NDArray[np.int32], list[tuple[int, str]]]:
        """Return (index into the stacks for each count, distinct stacks)."""
        number: dict[int, int] = {}
        stacks: list[tuple[int, str]] = []
        stack_of = np.zeros(len(drained.keys), np.int32)
        if not len(drained.keys):
            return stack_of, stacks
        order = np.argsort(drained.keys["tgid"], kind="stable")
        pids, starts = np.unique(drained.keys["tgid"][order], return_index=True)
        for pid, rows in zip(pids.tolist(), np.split(order, starts[1:]), strict=True):
            keys = drained.keys[rows]
            named = self._symbolizer.stacks(
                int(pid),
                list(zip(keys["user"].tolist(), keys["kernel"].tolist(), strict=True)),
                [drained.users[i] for i in rows],
                [drained.kernels[i] for i in rows],
            )
            for row, stack in zip(rows.tolist(), named, strict=True):
                at = number.setdefault(stack[0], len(stacks))
                if at == len(stacks):
                    stacks.append(stack)
                stack_of[row] = at
        return stack_of, stacks

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(timeout=5)


class _StackTable:
    def __init__(self, hashes: NDArray[np.uint64], ips: NDArray[np.uint64]) -> None:
        order = np.argsort(hashes)
        self._hashes, self._ips = hashes[order], ips[order]
        # Zeros stand after the root only: no frame has address 0.
        self._lengths = np.count_nonzero(self._ips, axis=1) if len(order) else np.zeros(0, np.int64)

    def stacks(self, wanted: NDArray[np.uint64]) -> list[Addresses]:
        none = np.zeros(0, np.uint64)
        if not len(self._hashes):
            return [none] * len(wanted)
        at = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        there = (self._hashes[at] == wanted) & (wanted != 0)
        return [self._ips[i, : self._lengths[i]] if ok else none for i, ok in zip(at.tolist(), there, strict=True)]


def _texts(comms: NDArray[np.bytes_]) -> list[str]:
    return [comm.decode("utf-8", "replace") for comm in comms.tolist()]


def _constant(text: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def _merge(
    codes: Sequence[NDArray[np.int32]], amounts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (first row of each distinct combination of codes, its summed amount). Sums are exact integers."""
    rows = len(amounts)
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.lexsort([np.asarray(code) for code in codes])
    new = np.zeros(rows, dtype=bool)
    new[0] = True
    for code in codes:
        ordered = np.asarray(code)[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    return order[starts], np.add.reduceat(amounts[order], starts)
