"""Numbers for what repeats: groups, functions, stacks, and the slots that window states are indexed by.

A *slot* is a (group, function) pair; a *pair* is a (group, stack) pair with the slots of the stack's distinct functions
and of its leaf. Nodes repeat each other's stacks, so a steady-state message costs two dictionary look-ups for each
distinct stack and no text at all; new stacks are split by Arrow in bulk. Numbers depend on the order of arrival in this
process, so no result may depend on them.

Memory: about 4 bytes for each frame of each known stack, twice, and 100 bytes for each distinct name. ``full`` says
when the bound is reached; the owner then starts a new vocabulary and carries its open states over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.columns import Growing, Key, distinct
from streams.pages import PagedTable
from streams.schema.messages import OTHER
from streams.schema.stack_columns import StackColumns
from streams.schema.stacks import FIELD_SEPARATOR, MAX_FIELD, UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

OTHER_ID = 0
_SHIFT = 32


class Vocabulary:
    """Interns groups, functions, stacks and slots. One for each partition; not thread-safe."""

    def __init__(self, max_slots: int = 2_000_000, max_frames: int = 16_000_000) -> None:
        self.max_slots, self.max_frames = max_slots, max_frames
        self.groups: list[Key] = []
        self.functions: list[str] = [OTHER]
        self.slot_group = Growing(np.int64)
        self.slot_function = Growing(np.int64)
        self._group_ids: dict[Key, int] = {}
        self._function_ids: dict[str, int] = {OTHER: OTHER_ID}
        self._slot_ids = PagedTable()
        self._stack_ids: dict[int, int] = {}
        self._stack_start, self._stack_leaf = Growing(np.int64), Growing(np.int64)
        self._stack_start.extend([0])
        self._stack_functions = Growing(np.int32, 1 << 16)
        self._pair_ids: dict[int, int] = {}
        self._pair_start, self._pair_leaf = Growing(np.int64), Growing(np.int64)
        self._pair_start.extend([0])
        self._pair_slots = Growing(np.int32, 1 << 16)

    @property
    def full(self) -> bool:
        """Return whether the bound on memory is reached."""
        frames = self._pair_slots.size + self._stack_functions.size
        cells = self._slot_ids.cells
        return self.slot_group.size > self.max_slots or frames > self.max_frames or cells > 16 * self.max_slots + 4096

    def group(self, key: Key) -> int:
        """Return the number of a group."""
        known = self._group_ids.get(key)
        if known is None:
            known = self._group_ids[key] = len(self.groups)
            self.groups.append(key)
        return known

    def function(self, name: str) -> int:
        """Return the number of a function."""
        known = self._function_ids.get(name)
        if known is None:
            known = self._function_ids[name] = len(self.functions)
            self.functions.append(name)
        return known

    def slots(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slots of ``group << 32 | function`` keys, making new ones."""
        groups, functions = keys >> _SHIFT, keys & ((1 << _SHIFT) - 1)
        found = self._slot_ids.get(groups, functions)
        new = found < 0
        if new.any():
            fresh = distinct(keys[new])
            first = self.slot_group.size
            self.slot_group.extend(fresh >> _SHIFT)
            self.slot_function.extend(fresh & ((1 << _SHIFT) - 1))
            numbers = np.arange(first, first + len(fresh))
            self._slot_ids.put(self.slot_group.view[first:], self.slot_function.view[first:], numbers)
            found[new] = self._slot_ids.get(groups[new], functions[new])
        return found

    def other_slot(self, group: int) -> int:
        """Return the slot of a group's remainder."""
        return int(self.slots(np.array([group << _SHIFT | OTHER_ID]))[0])

    def stacks(self, dictionary: pa.StructArray) -> NDArray[np.int64]:
        """Return the number of each stack of a message's dictionary, reading the text of new ones only."""
        ids = dictionary.field(0).to_numpy(zero_copy_only=False).tolist()
        get = self._stack_ids.get
        numbers = np.array([get(i, -1) for i in ids], np.int64)
        new: dict[int, int] = {}
        for at in np.flatnonzero(numbers < 0).tolist():
            new.setdefault(ids[at], at)
        if new:
            first = len(self._stack_ids)
            self._parse(StackColumns.from_entries(dictionary).take(np.array(list(new.values()), np.int64)))
            self._stack_ids.update(zip(new, range(first, first + len(new)), strict=True))
            get = self._stack_ids.get
            numbers = np.array([get(i, -1) for i in ids], np.int64)
        return numbers

    def _parse(self, stacks: StackColumns) -> None:
        fields = pc.split_pattern(stacks.frames, FIELD_SEPARATOR, max_splits=1)
        names = fields.values.take(pa.array(fields.offsets.to_numpy()[:-1]))
        # A result must keep the contract's bounds whatever the frame's text was.
        names = pc.utf8_slice_codeunits(names, 0, MAX_FIELD).dictionary_encode()
        intern = np.array([self.function(name or UNKNOWN) for name in names.dictionary.to_pylist()], np.int64)
        function = intern[names.indices.to_numpy(zero_copy_only=False)][stacks.codes]
        lengths, offsets = stacks.depths, stacks.offsets
        owner = np.repeat(np.arange(len(lengths)), lengths)
        # A function that stands twice in a stack (recursion) counts once in its total.
        once = distinct(owner << _SHIFT | function)
        self._stack_functions.extend(once & ((1 << _SHIFT) - 1))
        counts = np.bincount(once >> _SHIFT, minlength=len(lengths))
        self._stack_start.extend(int(self._stack_start.view[-1]) + np.cumsum(counts))
        self._stack_leaf.extend(function[offsets[1:] - 1])

    def pairs(self, groups: NDArray[np.int64], stacks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each (group, stack) pair, making new ones.

        A new pair that stands twice in one call gets two numbers, which expand alike; the later one stays known.
        """
        keys = groups << _SHIFT | stacks
        get = self._pair_ids.get
        found = np.array([get(key, -1) for key in keys.tolist()], np.int64)
        new = np.flatnonzero(found < 0)
        if len(new):
            first = self._pair_leaf.size
            group, stack = groups[new], stacks[new]
            functions, lengths = gather(self._stack_functions.view, self._stack_start.view, stack)
            leaves = self.slots(group << _SHIFT | self._stack_leaf.view[stack])
            self._pair_slots.extend(self.slots(np.repeat(group, lengths) << _SHIFT | functions))
            self._pair_leaf.extend(leaves)
            self._pair_start.extend(int(self._pair_start.view[-1]) + np.cumsum(lengths))
            found[new] = np.arange(first, first + len(new))
            self._pair_ids.update(zip(keys[new].tolist(), found[new].tolist(), strict=True))
        return found

    def expand(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Return (slots of the distinct functions of each pair, concatenated; how many of each; leaf slots)."""
        slots, lengths = gather(self._pair_slots.view, self._pair_start.view, pairs)
        return slots, lengths, self._pair_leaf.view[pairs]


def gather(
    values: NDArray[np.int32], start: NDArray[np.int64], which: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return (the lists ``which`` of a compressed sparse rows layout, concatenated; their lengths)."""
    begin = start[which]
    lengths = start[which + 1] - begin
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return values[np.arange(total) + np.repeat(begin - ends + lengths, lengths)], lengths
