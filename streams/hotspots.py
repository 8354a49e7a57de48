"""Hotspots: each function's self and total, for (cluster, namespace, service, version, type, unit) and one window.

Exact: the sum of self over a group's functions equals the sum of its sample values. Beyond ``max_functions`` functions
of a group, the rest counts as ``(other)``: mapped before totals are taken, so a stack through many of them counts once.
Which functions are kept is decided at their first message (by their total in it, then by name) and never again, so
that every later state has the same rows and a replay makes the same choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streams.columns import constant, distinct, group_rows, grown, sums_by, text_column
from streams.schema.messages import HOTSPOT
from streams.vocabulary import OTHER_ID, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.schema.messages import Interval

GROUP = ("namespace", "service", "version", "type", "unit")


class HotspotState:
    """The sums of one window, in arrays indexed by the vocabulary's slots.

    Messages repeat each other's stacks, so what they bring is added up by pair, and goes from pairs to functions when
    somebody asks (``_settle``). Only a pair that is new to the window is looked into at once: it may bring functions,
    and which of them are kept is decided by message.
    """

    def __init__(self, max_functions: int) -> None:
        self._max = max_functions
        self._words: Vocabulary | None = None  # that of the pairs
        self._waiting = np.zeros(0, np.int64)  # values, by pair
        self._touched = np.zeros(0, np.bool_)  # pairs with values that wait
        self._seen = np.zeros(0, np.bool_)  # pairs whose functions have been looked into
        self._self = np.zeros(0, np.int64)
        self._total = np.zeros(0, np.int64)
        self._dirty = np.zeros(0, np.bool_)
        # Where a slot counts: itself when kept, its group's (other) when not; -1 before it is first seen.
        self._target = np.zeros(0, np.int64)
        self._kept = np.zeros(0, np.int64)  # kept functions, by group
        self._redirects = False

    @property
    def dirty(self) -> int:
        """Return how many rows have changed since ``take_changed``."""
        self._settle()
        return int(np.count_nonzero(self._dirty))

    def add(self, words: Vocabulary, pairs: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        """Add one message's value of each pair."""
        self._words = words
        need = int(pairs.max(initial=-1)) + 1
        self._waiting, self._touched = grown(self._waiting, need), grown(self._touched, need)
        self._seen = grown(self._seen, need)
        fresh = np.flatnonzero(~self._seen[pairs])
        if len(fresh):
            self._look_into(words, pairs[fresh], values[fresh])
            self._seen[pairs[fresh]] = True
        np.add.at(self._waiting, pairs, values)
        self._touched[pairs] = True

    def _look_into(self, words: Vocabulary, pairs: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        """Decide about the functions that these pairs bring."""
        slots, lengths, _ = words.expand(pairs)
        self._grow(words)
        unseen = slots[self._target[slots] < 0]
        if len(unseen):
            self._admit(words, distinct(unseen), slots, np.repeat(values, lengths))
            self._grow(words)

    def _settle(self) -> None:
        """Bring the values that wait from their pairs to the functions."""
        pairs, words = np.flatnonzero(self._touched), self._words
        if words is None or not len(pairs):
            return
        values = self._waiting[pairs]
        self._waiting[pairs] = 0
        self._touched[pairs] = False
        slots: NDArray[Any]
        slots, lengths, leaves = words.expand(pairs)
        self._grow(words)
        totals = np.repeat(values, lengths)
        if self._redirects:
            slots, totals = self._redirect(words, slots, totals, lengths)
            leaves = self._target[leaves]
        np.add.at(self._total, slots, totals)
        np.add.at(self._self, leaves, values)
        self._dirty[slots] = True

    def _grow(self, words: Vocabulary) -> None:
        need = words.slot_group.size
        if need > len(self._total):
            self._self, self._total = grown(self._self, need), grown(self._total, need)
            self._dirty, self._target = grown(self._dirty, need), grown(self._target, need, fill=-1)
        self._kept = grown(self._kept, len(words.groups))

    def _admit(
        self, words: Vocabulary, new: NDArray[np.int64], slots: NDArray[np.int32], totals: NDArray[np.int64]
    ) -> None:
        groups, functions = words.slot_group.view[new], words.slot_function.view[new]
        self._target[new] = new
        counted = functions != OTHER_ID
        arriving = np.bincount(groups[counted], minlength=len(self._kept))
        crowded = np.flatnonzero((self._kept + arriving > self._max) & (arriving > 0))
        for group in crowded.tolist():
            mine = new[counted & (groups == group)]
            weight = np.zeros(len(mine), np.int64)
            within = np.isin(slots, mine)
            np.add.at(weight, np.searchsorted(mine, slots[within]), totals[within])
            names = [words.functions[f] for f in words.slot_function.view[mine].tolist()]
            order = sorted(range(len(mine)), key=lambda i, w=weight, n=names: (-int(w[i]), n[i]))  # type: ignore[misc]
            rest = mine[order[self._max - int(self._kept[group]) :]]
            other = words.other_slot(group)
            self._grow(words)
            self._target[rest] = self._target[other] = other
            arriving[group] -= len(rest)
            self._redirects = True
        self._kept += arriving

    def _redirect(
        self, words: Vocabulary, slots: NDArray[np.int32], totals: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        target = self._target[slots]
        remainder = words.slot_function.view[target] == OTHER_ID
        owner = np.repeat(np.arange(len(lengths)), lengths)
        at = np.flatnonzero(remainder)
        # One (other) for each stack, however many of its functions it stands for.
        again = np.ones(len(at), np.bool_)
        again[np.unique(owner[at], return_index=True)[1]] = False
        keep = np.ones(len(target), np.bool_)
        keep[at[again]] = False
        return target[keep], totals[keep]

    def take_changed(self, words: Vocabulary, head: dict[str, int]) -> pa.RecordBatch:
        """Return the rows that changed since the last call, each with its whole sums; ``head``: the window's fields."""
        self._settle()
        slots = np.flatnonzero(self._dirty)
        self._dirty[slots] = False
        rows = len(slots)
        groups = words.slot_group.view[slots]
        used, inverse = np.unique(groups, return_inverse=True)
        keys = [words.groups[g] for g in used.tolist()]
        columns: dict[str, pa.Array] = {
            name: constant(value, rows, HOTSPOT.field(name).type) for name, value in head.items()
        }
        for at, name in enumerate(("cluster", *GROUP)):
            columns[name] = text_column([key[at] for key in keys], inverse)
        columns["function"] = text_column(words.functions, words.slot_function.view[slots])
        columns["self"] = pa.array(self._self[slots])
        columns["total"] = pa.array(self._total[slots])
        return pa.RecordBatch.from_arrays([columns[name] for name in HOTSPOT.names], schema=HOTSPOT)

    def translated(self, old: Vocabulary, new: Vocabulary) -> HotspotState:
        """Return the same state over another vocabulary."""
        self._settle()
        state = HotspotState(self._max)
        seen = np.flatnonzero(self._target >= 0)
        group_map = {g: new.group(old.groups[g]) for g in np.unique(old.slot_group.view[seen]).tolist()}
        groups = np.array([group_map[g] for g in old.slot_group.view[seen].tolist()], np.int64)
        functions = np.array([new.function(old.functions[f]) for f in old.slot_function.view[seen].tolist()], np.int64)
        slots = new.slots(groups << 32 | functions)
        state._grow(new)
        moved = np.full(len(self._target), -1, np.int64)
        moved[seen] = slots
        state._target[slots] = moved[self._target[seen]]
        state._self[slots], state._total[slots] = self._self[seen], self._total[seen]
        state._dirty[slots] = self._dirty[seen]
        kept = np.flatnonzero(self._kept)
        state._kept[[group_map[g] for g in kept.tolist()]] = self._kept[kept]
        state._redirects = self._redirects
        return state


class Hotspots:
    """Turns raw profile batches into window states. One for each raw partition."""

    schema = "hotspot"
    collector = "hotspots"

    def __init__(self, max_functions: int, words: Vocabulary | None = None) -> None:
        self._max = max_functions
        self._words = words or Vocabulary()

    def state(self) -> HotspotState:
        """Return an empty window state."""
        return HotspotState(self._max)

    def rows(self, interval: Interval, batch: pa.RecordBatch) -> HotspotRows:
        """Return one message's rows, read into numbers."""
        words = self._words
        keys, inverse = group_rows(batch, GROUP, (interval.cluster,))
        stack = batch.column("stack")
        return HotspotRows(
            words,
            np.array([words.group(key) for key in keys], np.int64),
            inverse,
            words.stacks(stack.dictionary),
            stack.indices.to_numpy(zero_copy_only=False),
            batch.column("value").to_numpy(),
        )

    def changed(self, state: HotspotState, head: dict[str, int]) -> pa.RecordBatch:
        """Return a state's rows that changed since the last call."""
        return state.take_changed(self._words, head)

    def tidy(self, states: list[HotspotState]) -> list[HotspotState]:
        """Bound memory: when the vocabulary is full, begin a new one and carry the open states over."""
        if not self._words.full:
            return states
        old, self._words = self._words, Vocabulary(self._words.max_slots, self._words.max_frames)
        return [state.translated(old, self._words) for state in states]


class HotspotRows:
    """The rows of one message as numbers; group and stack are looked up once for each distinct one."""

    def __init__(
        self,
        words: Vocabulary,
        groups: NDArray[np.int64],
        group_at: NDArray[np.int64],
        stacks: NDArray[np.int64],
        stack_at: NDArray[np.int32],
        values: NDArray[np.int64],
    ) -> None:
        self._words, self._groups, self._stacks, self._values = words, groups, stacks, values
        self._codes = group_at * len(stacks) + stack_at

    def add_to(self, state: HotspotState, rows: NDArray[np.int64] | slice) -> None:
        """Add the rows given to a window's state."""
        size = len(self._stacks)
        codes, sums = sums_by(self._codes[rows], self._values[rows], len(self._groups) * size)
        pairs = self._words.pairs(self._groups[codes // size], self._stacks[codes % size])
        state.add(self._words, pairs, sums)
