"""Decodes pprof profiles (google/pprof ``profile.proto``, gzipped or not) into columns.

A location with several lines gives several frames: inlined calls are kept. Samples of one stack are added up, whatever
their labels. A frame without a name is named after its module, ``[libc.so.6]``, as ``go tool pprof`` does. Cost: about
6 ms for a Go program's profile of 1,000 samples; the only Python loops run over top-level fields, and over distinct
frames and stacks. Memory: bounded by the limits below, for the largest profile they allow some hundred MB for a moment.
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from collectors.scrapers import wire
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from streams.schema.text_bounds import longest

MAX_COMPRESSED = 16 * 1024 * 1024
MAX_BYTES = 32 * 1024 * 1024
MAX_SAMPLES = 250_000
MAX_FRAMES_TOTAL = 2_000_000
MAX_TEXT = 128 * 1024 * 1024
_CHUNK = 1 << 20
_VDSO = "[vdso]"
_UNCLEAN = np.isin(np.arange(256), [*range(32), 127])
_NONE = (array("q"), array("q"))
_ZERO = (array("q", [0]), array("q", [-1]))
Rename = Callable[[str, str], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Profile:
    """One decoded profile.

    ``types`` and ``units`` name the columns of ``values``, shape (stacks, types); ``texts`` are the distinct stacks as
    the contract writes them (root first). Times are nanoseconds; ``period`` is 0 when it is not sampled in a unit.
    ``process`` differs between two processes when their address spaces do (main program, vDSO); "" when not known.
    ``default`` is the type that the target would have shown first.
    """

    types: tuple[str, ...]
    units: tuple[str, ...]
    texts: list[str]
    values: NDArray[np.int64]
    samples: int
    time_ns: int
    duration_ns: int
    period_type: str
    period_unit: str
    period: int
    process: str
    default: str


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
            if not piece and not rest:
                raise CorruptRecordError("the profile is cut short")
            out += piece
            if len(out) > bound:
                raise CorruptRecordError(f"the profile is larger than {bound >> 20} MB when inflated")
    except zlib.error as error:
        raise CorruptRecordError(f"the profile's gzip data are damaged: {error}") from error
    return bytes(out)


def decode(data: bytes, bound: int = MAX_BYTES, renamed: Rename | None = None) -> Profile:
    """Return one profile.

    Args:
        data: the profile, gzipped or not.
        bound: bytes that it may have when inflated.
        renamed: makes (function, file) of the (function, file) of each distinct frame, "" where unknown.

    Raises:
        CorruptRecordError: these bytes are not a pprof profile, or exceed a bound.
    """
    raw = inflate(data, bound)
    if raw.lstrip()[:1] == b"<":
        raise CorruptRecordError("the answer is a HTML page, not a profile")
    try:
        top = wire.top_level(raw)
    except CorruptRecordError as error:
        raise CorruptRecordError(f"this is no pprof profile: {error}") from error
    return _Decoder(raw, top, renamed).profile()


class _Decoder:
    def __init__(
        self, raw: bytes, top: dict[int, tuple[array[int], array[int]]], renamed: Rename | None = None
    ) -> None:
        self._raw = raw
        self._renamed = renamed
        self._data = np.frombuffer(raw, np.uint8)
        self._top = top
        self._string_at, self._string_to = (places.tolist() for places in self._ranges(6))

    def profile(self) -> Profile:
        types = self._fields(1)
        kinds = len(self._ranges(1)[0])
        names, units = types.scalar(1, kinds), types.scalar(2, kinds)
        if kinds == 0 or len(self._string_at) == 0:
            raise CorruptRecordError("this is no pprof profile: it has no sample type or no string table")
        samples = len(self._ranges(2)[0])
        if samples > MAX_SAMPLES:
            raise CorruptRecordError(f"the profile has more than {MAX_SAMPLES} samples")
        fields = self._fields(2)
        owner, value = wire.repeated(self._data, fields.only(2))
        counts = np.bincount(owner, minlength=samples) if samples else np.zeros(0, np.int64)
        if np.any(counts != kinds):
            raise CorruptRecordError("a sample has not one value for each type")
        values = value.view(np.int64).reshape(samples, kinds)
        texts, which = self._stacks(fields.only(1), samples)
        summed = np.zeros((len(texts), kinds), np.int64)
        np.add.at(summed, which, values)
        period_type = self._fields(11)
        has_period = len(self._ranges(11)[0])
        return Profile(
            tuple(self._string(int(name)) for name in names),
            tuple(self._string(int(unit)) for unit in units),
            texts,
            summed,
            samples,
            self._number(9),
            self._number(10),
            self._string(int(period_type.scalar(1, has_period)[-1])) if has_period else "",
            self._string(int(period_type.scalar(2, has_period)[-1])) if has_period else "",
            self._number(12),
            self._process(),
            self._string(self._number(14)) or self._string(int(names[-1])),
        )

    def _ranges(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        begins, ends = self._top.get(number, _NONE)
        begin, end = np.array(begins, np.int64), np.array(ends, np.int64)
        if np.any(end < 0):
            raise CorruptRecordError(f"field {number} of the profile has the wrong wire type")
        return begin, end

    def _fields(self, number: int) -> wire.Fields:
        return wire.walk(self._data, *self._ranges(number))

    def _number(self, number: int) -> int:
        values, ends = self._top.get(number, _ZERO)
        if ends[-1] != -1:
            raise CorruptRecordError(f"field {number} of the profile has the wrong wire type")
        return values[-1]

    def _string(self, index: int) -> str:
        if not 0 <= index < len(self._string_at):
            raise CorruptRecordError("a string index is outside of the string table")
        return self._raw[self._string_at[index] : self._string_to[index]].decode("utf-8", "replace")

    def _modules(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (ids, numbers of the names, start addresses) of the mappings."""
        mappings = self._fields(3)
        count = len(self._ranges(3)[0])
        return mappings.scalar(1, count).view(np.uint64), mappings.scalar(5, count), mappings.scalar(2, count)

    def _process(self) -> str:
        _ids, names, starts = self._modules()
        found = [f"{starts[0]:x}"] if len(starts) else []
        found += [
            f"{start:x}"
            for name, start in zip(names.tolist(), starts.tolist(), strict=True)
            if self._string(name) == _VDSO
        ]
        return " ".join(found)

    def _frames(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], pa.Array]:
        """Return (location ids, begin of each location's frames in ``frame``, frame numbers, distinct frame texts)."""
        functions = self._fields(5)
        count = len(self._ranges(5)[0])
        function_ids = functions.scalar(1, count).view(np.uint64)
        locations = self._fields(4)
        total = len(self._ranges(4)[0])
        line_fields = locations.only(4)
        if np.any(line_fields.wire != wire.LENGTH):
            raise CorruptRecordError("a location's line has the wrong wire type")
        lines = wire.walk(self._data, line_fields.begin, line_fields.end)
        line_count = len(line_fields.begin)
        function = _find(function_ids, lines.scalar(1, line_count).view(np.uint64))
        # A location without lines is one frame without a name.
        bare = np.flatnonzero(np.bincount(line_fields.owner, minlength=total) == 0)
        owner = np.concatenate((line_fields.owner, bare))
        function = np.concatenate((function, np.full(len(bare), -1)))
        number = np.concatenate((lines.scalar(2, line_count), np.zeros(len(bare), np.int64)))
        name, file = _pick(functions.scalar(2, count), function), _pick(functions.scalar(4, count), function)
        module_ids, module_names, _starts = self._modules()
        module = _pick(module_names, _find(module_ids, locations.scalar(2, total).view(np.uint64)))[owner]
        # Each distinct frame is written once; the module counts only where it stands in for the name.
        key = np.stack((name, file, number, np.where(name == 0, module, 0)))
        distinct, frame = _distinct(key)
        texts = self._texts(distinct)
        order = np.argsort(owner, kind="stable")
        begin = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=total))))
        ids = locations.scalar(1, total).view(np.uint64)
        return ids, begin, frame[order], pa.array(texts, pa.string())

    def _texts(self, frames: NDArray[np.int64]) -> list[str]:
        """Return the frames (name, file, line, module), shape (4, n), as the contract writes them."""
        wanted, places = np.unique(frames[:2], return_inverse=True)
        names, files = places.reshape(2, -1).tolist()
        strings = self._strings(wanted.tolist())
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

    def _strings(self, wanted: list[int]) -> list[str]:
        """Return many strings; those of ASCII are cut from one text."""
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self._string_at):
            raise CorruptRecordError("a string index is outside of the string table")
        text = self._raw.decode("latin-1")
        found = [text[self._string_at[at] : self._string_to[at]] for at in wanted]
        if "".join(found).isascii():
            return found
        return [one if one.isascii() else self._string(at) for one, at in zip(found, wanted, strict=True)]

    def _module(self, name: int) -> str:
        path = self._string(name)
        return f"[{path.rsplit('/', 1)[-1].strip('[]')}]" if path else ""

    def _stacks(self, field: wire.Fields, samples: int) -> tuple[list[str], NDArray[np.int64]]:
        """Return (distinct stack texts, the stack of each sample)."""
        ids, begin, frame, texts = self._frames()
        owner, location = wire.repeated(self._data, field)
        at = _find(ids, location)
        if np.any(at < 0):
            raise CorruptRecordError("a sample names a location that is not in the profile")
        lengths = begin[at + 1] - begin[at]
        total = int(lengths.sum())
        if total > MAX_FRAMES_TOTAL:
            raise CorruptRecordError(f"the profile's stacks have more than {MAX_FRAMES_TOTAL} frames")
        stops = np.cumsum(lengths)
        flat = frame[np.arange(total) + np.repeat(begin[at] - stops + lengths, lengths)]
        depth = np.bincount(np.repeat(owner, lengths), minlength=samples).astype(np.int64)
        offsets = np.concatenate(([0], np.cumsum(depth)))
        # Leaf first in the profile, root first in the contract: each sample's frames are turned around.
        turned = np.repeat(offsets[:-1] + offsets[1:] - 1, depth) - np.arange(total)
        flat = flat[turned]
        return joined(flat, depth, texts)


def joined(
    flat: NDArray[np.int64], depth: NDArray[np.int64], texts: pa.StringArray
) -> tuple[list[str], NDArray[np.int64]]:
    """Return (distinct stack texts, the stack of each sample).

    Args:
        flat: the samples' frames one after the other, root first, as places in ``texts``.
        depth: how many frames each sample has.
        texts: the distinct frames.

    Raises:
        CorruptRecordError: the texts would be longer than ``MAX_TEXT``.
    """
    if int(pc.binary_length(texts).to_numpy()[flat].sum()) + len(flat) > MAX_TEXT:
        raise CorruptRecordError(f"the profile's stacks are longer than {MAX_TEXT >> 20} MB as text")
    normal = np.all((depth > 0) & (depth <= stacks.MAX_FRAMES))
    offsets = np.concatenate(([0], np.cumsum(depth)))
    listed = pc.binary_join(
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts.take(pa.array(flat))),
        stacks.FRAME_SEPARATOR,
    )
    encoded = listed.dictionary_encode()
    result = encoded.dictionary.to_pylist()
    which = encoded.indices.to_numpy().astype(np.int64)
    if not normal or longest(encoded.dictionary) > stacks.MAX_STACK_BYTES:
        # No frames, or too many of them, or too long: what becomes equal is one stack.
        mended = [stacks.join(text.split(stacks.FRAME_SEPARATOR)) or stacks.frame_text("") for text in result]
        number = {text: i for i, text in enumerate(dict.fromkeys(mended))}
        which = np.array([number[text] for text in mended], np.int64)[which]
        result = list(number)
    return result, which


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
