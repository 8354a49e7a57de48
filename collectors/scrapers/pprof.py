"""Decodes pprof profiles (google/pprof ``profile.proto``, gzipped or not) into columns.

A location with several lines gives several frames: inlined calls are kept. Samples of one stack are added up, whatever
their labels. A frame without a name is named after its module, ``[libc.so.6]``, as ``go tool pprof`` does. Cost: about
6 ms for a Go program's profile of 1,000 samples; the only Python loops run over top-level fields, and over distinct
frames and stacks. Memory: bounded by the limits below, for the largest profile they allow some hundred MB for a moment.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.scrapers import pprof_tables
from collectors.scrapers.distinct_stacks import MAX_TEXT, distinct_stacks
from collectors.scrapers.pprof_tables import Tables
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from streams.schema.stack_columns import StackColumns

MAX_COMPRESSED = 16 * 1024 * 1024
MAX_BYTES = 32 * 1024 * 1024
MAX_FRAMES_TOTAL = 2_000_000
_CHUNK = 1 << 20
_VDSO = "[vdso]"
_UNCLEAN = np.isin(np.arange(256), [*range(32), 127])
Rename = Callable[[str, str], tuple[str, str]]
Read = Callable[[bytes], Tables]
Inflate = Callable[[bytes, int], bytes]


class SampleStacks(NamedTuple):
    """The stacks of all samples.

    ``codes`` are the samples' frames, root first, one after the other, as places in ``frames``; ``depth`` is how many
    each sample has.
    """

    frames: pa.StringArray
    codes: NDArray[np.int64] | NDArray[np.int32]
    depth: NDArray[np.int64]


Which = NDArray[np.int64] | NDArray[np.int32]
"""The stack of each sample; stacks are numbered in the order in which they are first seen."""
Stack = Callable[[bytes, Tables], tuple[StackColumns, Which] | None]


@dataclass(frozen=True, slots=True)
class Profile:
    """One decoded profile.

    ``types`` and ``units`` name the columns of ``values``, shape (stacks, types); ``stacks`` are distinct. Times are
    nanoseconds; ``period`` is 0 when it is not sampled in a unit.
    ``process`` differs between two processes when their address spaces do (main program, vDSO); "" when not known.
    ``default`` is the type that the target would have shown first.
    """

    types: tuple[str, ...]
    units: tuple[str, ...]
    stacks: StackColumns
    values: NDArray[np.int64]
    samples: int
    time_ns: int
    duration_ns: int
    period_type: str
    period_unit: str
    period: int
    process: str
    default: str

    @property
    def texts(self) -> list[str]:
        """Return the stacks as the contract writes them, made anew."""
        found: list[str] = self.stacks.texts().to_pylist()
        return found


def inflate(data: bytes, bound: int = MAX_BYTES) -> bytes:
    """Return the bytes of a gzip stream, or the data as they are when they are none.

    Raises:
        CorruptRecordError: damaged, cut short, or larger than ``bound`` when inflated.
    """
    if data[:2] != b"\x1f\x8b":
        if len(data) > bound:
            raise CorruptRecordError(f"the profile is larger than {bound >> 20} MB")
        return data
    engine = zlib.decompressobj(wbits=31)
    out = bytearray()
    rest = data
    try:
        while not engine.eof:
            piece = engine.decompress(rest, _CHUNK)
            rest = engine.unconsumed_tail
            if not piece and not rest and not engine.eof:
                raise CorruptRecordError("the profile is cut short")
            out += piece
            if len(out) > bound:
                raise CorruptRecordError(f"the profile is larger than {bound >> 20} MB when inflated")
    except zlib.error as error:
        raise CorruptRecordError(f"the profile's gzip data are damaged: {error}") from error
    return bytes(out)


def decode(
    data: bytes,
    bound: int = MAX_BYTES,
    renamed: Rename | None = None,
    read: Read = pprof_tables.read,
    stack: Stack | None = None,
    inflated: Inflate = inflate,
) -> Profile:
    """Return one profile.

    Args:
        data: the profile, gzipped or not.
        bound: bytes that it may have when inflated.
        renamed: makes (function, file) of the (function, file) of each distinct frame, "" where unknown.
        read: reads the wire, as ``pprof_tables.read`` does.
        stack: makes (distinct stacks, the stack of each sample) where it can, and says None where it cannot.
        inflated: inflates gzip within a bound, as ``inflate`` does.

    Raises:
        CorruptRecordError: these bytes are not a pprof profile, or exceed a bound.
    """
    raw = inflated(data, bound)
    if raw.lstrip()[:1] == b"<":
        raise CorruptRecordError("the answer is a HTML page, not a profile")
    return _Decoder(raw, read(raw), renamed, stack).profile()


class _Decoder:
    def __init__(self, raw: bytes, tables: Tables, renamed: Rename | None = None, stack: Stack | None = None) -> None:
        self._raw = raw
        self._tables = tables
        self._renamed = renamed
        self._stack = stack

    def profile(self) -> Profile:
        tables = self._tables
        samples, kinds = tables.values.shape
        found, which = self._stacks()
        if len(found) == samples:  # each has a stack of its own
            summed = tables.values.copy()
        else:
            summed = np.zeros((len(found), kinds), np.int64)
            np.add.at(summed, which, tables.values)
        types = tuple(map(self._string, tables.type_name.tolist()))
        return Profile(
            types,
            tuple(map(self._string, tables.type_unit.tolist())),
            found,
            summed,
            samples,
            tables.time_ns,
            tables.duration_ns,
            self._string(tables.period_type),
            self._string(tables.period_unit),
            tables.period,
            self._process(),
            self._string(tables.default) or types[-1],
        )

    def _string(self, index: int) -> str:
        begins = self._tables.string_begin
        if not 0 <= index < len(begins):
            raise CorruptRecordError("a string index is outside of the string table")
        return self._raw[int(begins[index]) : int(self._tables.string_end[index])].decode("utf-8", "replace")

    def _process(self) -> str:
        names, starts = self._tables.mapping_name.tolist(), self._tables.mapping_start.tolist()
        found = [f"{start:x}" for start in starts[:1]]
        found += [f"{start:x}" for name, start in zip(names, starts, strict=True) if self._string(name) == _VDSO]
        return " ".join(found)

    def _frames(self) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
        """Return (begin of each location's frames in the next, frame numbers, distinct frame texts)."""
        tables = self._tables
        total = len(tables.location_id)
        function = _find(tables.function_id, tables.line_function)
        # A location without lines is one frame without a name.
        bare = np.flatnonzero(np.bincount(tables.line_owner, minlength=total) == 0)
        owner = np.concatenate((tables.line_owner, bare))
        function = np.concatenate((function, np.full(len(bare), -1)))
        number = np.concatenate((tables.line_number, np.zeros(len(bare), np.int64)))
        name, file = _pick(tables.function_name, function), _pick(tables.function_file, function)
        module = _pick(tables.mapping_name, _find(tables.mapping_id, tables.location_mapping))[owner]
        # Each distinct frame is written once; the module counts only where it stands in for the name.
        key = np.stack((name, file, number, np.where(name == 0, module, 0)))
        distinct, frame = _distinct(key)
        self._bound(distinct[:2])
        order = np.argsort(owner, kind="stable")
        begin = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=total))))
        return begin, frame[order], pa.array(self._texts(distinct), pa.string())

    def _bound(self, strings: NDArray[np.int64]) -> None:
        """Check the strings of all distinct frames: that they exist, and how long they are together."""
        count = len(self._tables.string_begin)
        if strings.size and not (strings.min() >= 0 and strings.max() < count):
            raise CorruptRecordError("a string index is outside of the string table")
        lengths = np.minimum(self._tables.string_end - self._tables.string_begin, stacks.MAX_FIELD)
        if int(lengths[strings].sum()) > MAX_TEXT:
            raise CorruptRecordError(f"the profile's frames are longer than {MAX_TEXT >> 20} MB as text")

    def _texts(self, frames: NDArray[np.int64]) -> list[str]:
        """Return the frames (name, file, line, module), shape (4, n), as the contract writes them."""
        wanted, places = np.unique(frames[:2], return_inverse=True)
        names, files = places.reshape(2, -1).tolist()
        strings = self._strings(wanted)
        numbers, modules = frames[2:].tolist()
        if self._renamed is not None:
            pairs = [self._renamed(strings[name], strings[file]) for name, file in zip(names, files, strict=True)]
            return [
                stacks.frame_text(name or self._module(module), file, line)
                for (name, file), line, module in zip(pairs, numbers, modules, strict=True)
            ]
        # One look at all of them: a frame that needs care is rare.
        whole = "".join(strings)
        plain = whole.isascii() and not np.any(_UNCLEAN[np.frombuffer(whole.encode(), np.uint8)])
        longest_string = max(map(len, strings), default=0)
        if plain and longest_string <= stacks.MAX_FIELD and np.all(frames[0]) and np.all(frames[2] >= 0):
            rows = zip(names, files, numbers, strict=True)
            return [f"{strings[name] or stacks.UNKNOWN}\t{strings[file]}\t{line}" for name, file, line in rows]
        return [
            stacks.frame_text(strings[name] or self._module(module), strings[file], line)
            for name, file, line, module in zip(names, files, numbers, modules, strict=True)
        ]

    def _strings(self, wanted: NDArray[np.int64]) -> list[str]:
        """Return many strings; those of ASCII are cut from one text."""
        text = self._raw.decode("latin-1")
        begins, ends = self._tables.string_begin[wanted].tolist(), self._tables.string_end[wanted].tolist()
        found = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
        if "".join(found).isascii():
            return found
        return [one if one.isascii() else self._string(at) for one, at in zip(found, wanted.tolist(), strict=True)]

    def _module(self, name: int) -> str:
        path = self._string(name)
        return f"[{path.rsplit('/', 1)[-1].strip('[]')}]" if path else ""

    def _stacks(self) -> tuple[StackColumns, Which]:
        """Return (distinct stacks, the stack of each sample)."""
        made = self._stack(self._raw, self._tables) if self._stack and not self._renamed else None
        if made is not None:
            return made
        frames, codes, depth = self._sampled()
        return distinct_stacks(codes, depth, frames)

    def _sampled(self) -> SampleStacks:
        begin, frame, texts = self._frames()
        at = _find(self._tables.location_id, self._tables.location)
        if np.any(at < 0):
            raise CorruptRecordError("a sample names a location that is not in the profile")
        lengths = begin[at + 1] - begin[at]
        total = int(lengths.sum())
        if total > MAX_FRAMES_TOTAL:
            raise CorruptRecordError(f"the profile's stacks have more than {MAX_FRAMES_TOTAL} frames")
        samples = len(self._tables.depth)
        owner = np.repeat(np.arange(samples), self._tables.depth)
        stops = np.cumsum(lengths)
        flat = frame[np.arange(total) + np.repeat(begin[at] - stops + lengths, lengths)]
        depth = np.bincount(np.repeat(owner, lengths), minlength=samples).astype(np.int64)
        offsets = np.concatenate(([0], np.cumsum(depth)))
        # Leaf first in the profile, root first in the contract: each sample's frames are turned around.
        turned = np.repeat(offsets[:-1] + offsets[1:] - 1, depth) - np.arange(total)
        return SampleStacks(texts, flat[turned], depth)


def _distinct(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (distinct columns of ``key``, which of them each column is); ``key`` has shape (k, n)."""
    code = np.zeros(key.shape[1], np.int64)
    spans = [int(row.max(initial=0)) + 1 for row in key]
    fits = bool(np.all(key >= 0)) and math.prod(spans) < 1 << 62
    for row, span in zip(key, spans, strict=True):
        if fits:
            code = code * span + row
        else:
            # Numbered anew after each row, so that no code outgrows its type.
            pair = code * (len(row) + 1) + np.unique(row, return_inverse=True)[1].reshape(-1)
            code = np.unique(pair, return_inverse=True)[1].reshape(-1)
    _values, first, which = np.unique(code, return_index=True, return_inverse=True)
    return key[:, first], which.reshape(-1)


def _find(ids: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where each wanted id stands in ``ids``, -1 where it does not."""
    if len(ids) == 0:
        return np.full(len(wanted), -1, np.int64)
    if ids[0] == 1 and ids[-1] == len(ids) and np.all(ids[1:] == ids[:-1] + np.uint64(1)):
        # Numbered from 1 on, as nearly every writer does it; 0 becomes the greatest number.
        place = wanted - np.uint64(1)
        return np.where(place < len(ids), place.view(np.int64), -1)
    order = np.argsort(ids, kind="stable")
    at = np.searchsorted(ids[order], wanted)
    at[at == len(ids)] = 0
    found = order[at]
    return np.where(ids[found] == wanted, found, -1)


def _pick(column: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``column[at]``, 0 where ``at`` is negative."""
    return np.concatenate((column, [0]))[at] if len(column) else np.zeros(len(at), np.int64)
