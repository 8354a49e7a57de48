"""Distinct stacks in columns: each frame's text once, and each stack as a list of numbers of frames.

A stack's text (see ``streams.schema.stacks``) repeats its frames' texts: a profile of 1,000 stacks is 1.7 MB as text
and 0.3 MB like this. So do messages carry it, and whatever need not read a frame keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streams.schema.messages import STACK
from streams.schema.stacks import FRAME_SEPARATOR, stack_id


@dataclass(frozen=True, slots=True)
class StackColumns:
    """Stack ``i`` is ``frames[codes[offsets[i]:offsets[i + 1]]]``, root first.

    ``frames`` need not be distinct, nor all in use. ``codes`` has shape (frames of all stacks,), ``offsets`` has one
    entry more than there are stacks. ``keys``, where somebody computed them, has one for each frame: a hash by which
    this process knows its text again.
    """

    frames: pa.StringArray
    codes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    keys: NDArray[np.uint64] | None = None

    @classmethod
    def from_texts(cls, texts: Sequence[str] | pa.StringArray) -> StackColumns:
        """Return the stacks of these texts, in their order."""
        listed = pc.split_pattern(
            texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string()), FRAME_SEPARATOR
        )
        encoded = listed.flatten().dictionary_encode()
        lengths = pc.list_value_length(listed).to_numpy(zero_copy_only=False)
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        return cls(encoded.dictionary, encoded.indices.to_numpy(), offsets)

    @classmethod
    def from_entries(cls, entries: pa.StructArray) -> StackColumns:
        """Return the stacks of a message's dictionary."""
        listed = entries.field("frames")
        values = listed.values
        return cls(values.dictionary, values.indices.to_numpy(), listed.offsets.to_numpy().astype(np.int64))

    def __len__(self) -> int:
        """Return how many stacks there are."""
        return len(self.offsets) - 1

    @property
    def depths(self) -> NDArray[np.int64]:
        """Return how many frames each stack has."""
        return np.diff(self.offsets)

    def take(self, stacks: NDArray[np.int64]) -> StackColumns:
        """Return these stacks; the frames stay as they are."""
        depths = self.depths[stacks]
        stops = np.cumsum(depths)
        total = int(stops[-1]) if len(stops) else 0
        places = np.arange(total) + np.repeat(self.offsets[:-1][stacks] - stops + depths, depths)
        return StackColumns(self.frames, self.codes[places], np.concatenate(([0], stops)), self.keys)

    def compact(self) -> StackColumns:
        """Return the same stacks without frames that none of them has."""
        present = np.zeros(len(self.frames), np.bool_)
        present[self.codes] = True
        if present.all():
            return self
        codes = (np.cumsum(present, dtype=np.int32) - 1)[self.codes]
        keys = None if self.keys is None else self.keys[present]
        return StackColumns(self.frames.filter(pa.array(present)), codes, self.offsets, keys)

    def distinct(self) -> tuple[StackColumns, NDArray[np.int64]]:
        """Return (each stack once, which of them each stack is); frames must be distinct."""
        offsets = (4 * (self.offsets - self.offsets[0])).astype(np.int64)
        codes = np.ascontiguousarray(self.codes[self.offsets[0] : self.offsets[-1]], np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(codes)]
        encoded = pa.Array.from_buffers(pa.large_binary(), len(self), buffers).dictionary_encode()
        _, begins, data = encoded.dictionary.buffers()
        found = np.frombuffer(begins, np.int64, len(encoded.dictionary) + 1) // 4
        used = np.frombuffer(data, np.int32, int(found[-1])) if data is not None else codes[:0]
        return StackColumns(self.frames, used, found, self.keys), encoded.indices.to_numpy().astype(np.int64)

    def text_bytes(self) -> NDArray[np.int64]:
        """Return the length of each stack's text in bytes of UTF-8."""
        lengths = pc.binary_length(self.frames).to_numpy(zero_copy_only=False).astype(np.int64) + 1
        before = np.concatenate(([0], np.cumsum(lengths[self.codes])))
        # A separator stands between two frames, so there is one less than there are frames.
        sizes: NDArray[np.int64] = np.maximum(before[self.offsets[1:]] - before[self.offsets[:-1]] - 1, 0)
        return sizes

    def texts(self) -> pa.StringArray:
        """Return the stacks as text. The caller has looked at ``text_bytes``: this may be much larger than the rest."""
        offsets = pa.array(self.offsets, pa.int64())
        listed = pa.LargeListArray.from_arrays(offsets, self.frames.take(pa.array(self.codes)))
        return pc.binary_join(listed, FRAME_SEPARATOR)

    def entries(self, ids: NDArray[np.uint64]) -> pa.StructArray:
        """Return the dictionary of a message's ``stack`` column; ``ids`` has shape (stacks,)."""
        used = self.compact()
        values = pa.DictionaryArray.from_arrays(pa.array(used.codes, pa.int32()), used.frames)
        kind = STACK.field("frames").type
        listed = pa.ListArray.from_arrays(pa.array(used.offsets, pa.int32()), values, type=kind)
        return pa.StructArray.from_arrays([pa.array(ids, pa.uint64()), listed], fields=list(STACK))


def entries(texts: Sequence[str] | pa.StringArray, ids: Sequence[int] | None = None) -> pa.StructArray:
    """Return the dictionary of a message's ``stack`` column from the stacks' texts, and their ids where known."""
    if ids is None:
        ids = [stack_id(text) for text in texts]
    return StackColumns.from_texts(texts).entries(np.array(ids, np.uint64))


def identify(stacks: StackColumns) -> NDArray[np.uint64]:
    """Return the id of each stack; shape (stacks,)."""
    return np.fromiter((stack_id(text) for text in stacks.texts().to_pylist()), np.uint64, len(stacks))


def merged(parts: Sequence[StackColumns]) -> StackColumns:
    """Return the stacks of all parts, one after the other, over one set of distinct frames."""
    if len(parts) == 1:
        return parts[0]
    encoded = pa.concat_arrays([part.frames for part in parts]).dictionary_encode()
    number = encoded.indices.to_numpy()
    first = np.cumsum([0] + [len(part.frames) for part in parts])
    codes = [number[base + part.codes] for base, part in zip(first.tolist(), parts, strict=False)]
    depths = np.concatenate([part.depths for part in parts])
    return StackColumns(encoded.dictionary, np.concatenate(codes), np.concatenate(([0], np.cumsum(depths))))
