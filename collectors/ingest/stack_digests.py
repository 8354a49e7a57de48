"""Frames and stacks known again by machine code: keyed hashes of both, to tell equal ones in one walk.

Each frame's text is hashed once, in four lanes (FNV-1a's step with a secret multiplier and a shift between), to the 64
bits that ``StackColumns.keys`` holds; a stack's two halves run over its frames' keys. Not cryptographic hashes: what
protects them is that their multipliers are drawn at the start and their values never leave the process. Cost: 0.1 ms
for 3,000 frames of 60 bytes, and as much for 1,000 stacks of 25.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from collectors.ingest.machine_code import Int, made_by, part, readable
from streams.schema.stack_columns import StackColumns

Words = NDArray[np.uint64]
_SECRETS = np.array([secrets.randbits(64) | 1 for _ in range(6)], np.uint64)


class Code(NamedTuple):
    """The machine code of the functions below."""

    keys: Callable[..., None]
    digests: Callable[..., None]
    number: Callable[..., int]
    find: Callable[..., int]
    add: Callable[..., int]


def _keys(data: NDArray[np.uint8], begins: NDArray[np.int32], secret: Words, out: Words) -> None:
    """Hash frames.

    Args:
        data: the texts of all frames.
        begins: where each frame begins in ``data``, and the end.
        secret: six odd numbers.
        out: is given the frames' keys.
    """
    shift = np.uint64(29)
    for frame in range(len(out)):
        first, last = begins[frame], begins[frame + 1]
        one, two, three, four = secret[0], secret[2], secret[3], secret[4]
        place = first
        while place + 4 <= last:
            one = (one ^ np.uint64(data[place])) * secret[1]
            two = (two ^ np.uint64(data[place + 1])) * secret[1]
            three = (three ^ np.uint64(data[place + 2])) * secret[1]
            four = (four ^ np.uint64(data[place + 3])) * secret[1]
            one ^= one >> shift
            two ^= two >> shift
            three ^= three >> shift
            four ^= four >> shift
            place += 4
        while place < last:
            one = (one ^ np.uint64(data[place])) * secret[1]
            one ^= one >> shift
            place += 1
        value = np.uint64(last - first) * secret[5]
        for lane in (one, two, three, four):
            value = (value ^ lane) * secret[2]
            value ^= value >> np.uint64(32)
        out[frame] = value


def _digests(keys: Words, codes: NDArray[np.int32], offsets: NDArray[np.int64], secret: Words, out: Words) -> None:
    """Hash stacks.

    Args:
        keys: of all frames.
        codes: the frames of all stacks.
        offsets: where each stack begins in ``codes``, and the end.
        secret: six odd numbers.
        out: is given the digests, shape (stacks, 2); their first half is never 0.
    """
    for stack in range(len(out)):
        one, two = secret[3], secret[4]
        for place in range(offsets[stack], offsets[stack + 1]):
            value = keys[codes[place]]
            one = (one ^ value) * secret[5]
            one ^= one >> np.uint64(31)
            two = (two + value) * secret[1]
            two ^= two >> np.uint64(33)
        out[stack, 0], out[stack, 1] = one | np.uint64(1), two


def _number(keys: Words, slots: NDArray[np.int32], number: NDArray[np.int32], first: NDArray[np.int64]) -> int:
    """Number keys in the order in which they are first seen; returns how many there are.

    Args:
        keys: some more than once.
        slots: room for a hash table, all -1, a power of two and more than there are keys.
        number: is given the number of each key.
        first: is given the place at which each number's key was first seen.
    """
    found, mask = 0, np.uint64(len(slots) - 1)
    for at in range(len(keys)):
        slot = keys[at] & mask
        while slots[slot] >= 0 and keys[first[slots[slot]]] != keys[at]:
            slot = (slot + np.uint64(1)) & mask
        if slots[slot] < 0:
            slots[slot] = found
            first[found] = at
            found += 1
        number[at] = slots[slot]
    return found


@part
def _slot_of(digests: Words, at: int, table: Words) -> Int:
    """Return the slot of a table that a digest has, or the free one in which it belongs."""
    mask = np.uint64(len(table) - 1)
    slot = (digests[at, 0] >> np.uint64(1)) & mask
    while table[slot, 0] and (table[slot, 0] != digests[at, 0] or table[slot, 1] != digests[at, 1]):
        slot = (slot + np.uint64(1)) & mask
    return slot


def _find(digests: Words, table: Words, ids: Words, out: Words) -> int:
    """Look stacks up; returns how many are not there.

    Args:
        digests: shape (stacks, 2).
        table: digests by hash, 0 where there is none, shape (slots, 2); slots is a power of two, some are free.
        ids: those of the digests in the table, by slot.
        out: is given the ids of those that are there, 0 for others.
    """
    missing = 0
    for at in range(len(digests)):
        slot = _slot_of(digests, at, table)
        out[at] = ids[slot]
        if not table[slot, 0]:
            out[at] = 0
            missing += 1
    return missing


def _add(digests: Words, new: Words, table: Words, ids: Words) -> int:
    """Put stacks into a table that has room for them; returns how many were not there.

    Args:
        digests: shape (stacks, 2).
        new: their ids.
        table: as for ``_find``.
        ids: those in the table.
    """
    added = 0
    for at in range(len(digests)):
        slot = _slot_of(digests, at, table)
        if not table[slot, 0]:
            table[slot, 0], table[slot, 1], ids[slot] = digests[at, 0], digests[at, 1], new[at]
            added += 1
    return added


def _compiled(*, cache: bool) -> Code:
    # Arrow's own offsets are never outside of its own texts: checking them would be most of the cost.
    keys_of = njit(nogil=True, boundscheck=False, cache=cache)(_keys)
    parts = (njit(nogil=True, boundscheck=True, cache=cache)(part) for part in (_digests, _number, _find, _add))
    made = Code(keys_of, *parts)
    # It is compiled for the arguments of the first call.
    stacks = StackColumns.from_texts(["main\t\t0"])
    keys = _keys_of(stacks.frames, made)
    _numbered(keys, made)
    digests, table, ids = _digests_of(stacks, keys, made), np.zeros((2, 2), np.uint64), np.zeros(2, np.uint64)
    made.find(digests, table, ids, keys)
    made.add(digests, keys, table, ids)
    return made


@functools.cache
def code() -> Code:
    """Return the machine code; the first call compiles, or reads what was compiled before."""
    return made_by(_compiled)


def digests(stacks: StackColumns) -> Words:
    """Return 128 bits for each stack, by which it is known again in this process; shape (stacks, 2)."""
    return _digests_of(stacks, _keys_in(stacks), code())


def find(found: Words, table: Words, ids: Words) -> tuple[Words, int]:
    """Return (the ids of digests, 0 for those that are not there, how many those are); as ``_find``."""
    out = np.empty(len(found), np.uint64)
    return out, code().find(found, table, ids, out)


def add(found: Words, new: Words, table: Words, ids: Words) -> int:
    """Put digests and their ids into a table; returns how many were not there; as ``_add``."""
    return code().add(found, new, table, ids)


def distinct_keys(frames: pa.StringArray) -> Words | None:
    """Return the keys of frames; None when two are equal."""
    keys = _keys_of(frames, code())
    return keys if len(_numbered(keys, code())[1]) == len(keys) else None


def first_seen(ids: Words) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return (which of the distinct ids each is, where each distinct one stands first), as they are first seen."""
    # Anyone can compute an id: where it lies in the hash table must be nobody's choice.
    keys = ids * _SECRETS[0]
    return _numbered(keys ^ (keys >> np.uint64(32)), code())


def distinct(stacks: StackColumns) -> tuple[StackColumns, NDArray[np.int32]]:
    """Return (each stack once, which of them each stack is), in the order in which they are first seen."""
    both = digests(stacks)
    number, first = _numbered(both[:, 0] ^ both[:, 1] * _SECRETS[0], code())
    return stacks if len(first) == len(number) else stacks.take(first), number


def merged(parts: Sequence[StackColumns]) -> StackColumns:
    """Return the stacks of all parts, as ``stack_columns.merged``."""
    if len(parts) == 1:
        return parts[0]
    keys = np.concatenate([_keys_in(part) for part in parts])
    frames = pa.concat_arrays([part.frames for part in parts])
    number, first = _numbered(keys, code())
    if len(first) < len(keys):
        new = np.zeros(len(keys), np.bool_)
        new[first] = True  # they are in order: nearly all of one profile, so that they are copied in long runs
        frames, keys = frames.filter(pa.array(new)), keys[first]
    base = np.cumsum([0] + [len(part.frames) for part in parts]).tolist()
    codes = [number[begin : begin + len(part.frames)][part.codes] for begin, part in zip(base, parts, strict=False)]
    depths = np.concatenate([part.depths for part in parts])
    return StackColumns(frames, np.concatenate(codes), np.concatenate(([0], np.cumsum(depths))), keys)


def _keys_in(stacks: StackColumns) -> Words:
    return _keys_of(stacks.frames, code()) if stacks.keys is None else stacks.keys


def _keys_of(frames: pa.StringArray, made: Code) -> Words:
    count = len(frames)
    out = np.empty(count, np.uint64)
    if count:
        _, places, texts = frames.buffers()
        begins = np.frombuffer(places, np.int32)[frames.offset :][: count + 1]
        data = np.frombuffer(texts, np.uint8) if texts is not None else np.zeros(1, np.uint8)
        made.keys(readable(data), readable(begins), _SECRETS, out)
    return out


def _digests_of(stacks: StackColumns, keys: Words, made: Code) -> Words:
    out = np.empty((len(stacks), 2), np.uint64)
    codes, offsets = stacks.codes.astype(np.int32, copy=False), stacks.offsets.astype(np.int64, copy=False)
    made.digests(readable(keys), readable(codes), readable(offsets), _SECRETS, out)
    return out


def _numbered(keys: Words, made: Code) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    slots = np.full(1 << (2 * len(keys) + 1).bit_length(), -1, np.int32)
    number, first = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
    return number, first[: made.number(readable(keys), slots, number, first)]
