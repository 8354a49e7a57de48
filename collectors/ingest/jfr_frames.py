"""The stacks of one Java Flight Recorder chunk as text.

A Java frame is ``package.Class.method`` with its line. The running numbers in the names of classes that the JVM makes
(lambdas, proxies, accessors) are left out: they differ from start to start. A frame of native code, which
async-profiler writes with the library in the place of the class, is the function, with the library as its file.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from collectors.ingest.jfr_pools import Column, Pools
from collectors.scrapers.distinct_stacks import distinct_stacks
from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from streams.schema.stack_columns import StackColumns

MAX_STACK_FRAMES = 2_000_000
_NATIVE = b"()L;"
_ADDRESS = re.compile(r"(?:[/+.]0x[0-9a-fA-F]+|/\d+)+$")
_NUMBERED = re.compile(
    r"(\$\$Lambda|\$Proxy|LambdaForm\$\w+?|Generated(?:Method|Constructor|SerializationConstructor)Accessor)\$?\d+$"
)


def last_of(ids: Column, wanted: Column) -> Column:
    """Return where each wanted id stands last in ``ids``, -1 where it does not."""
    if len(ids) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(ids, kind="stable")
    at = np.searchsorted(ids[order], wanted, side="right") - 1
    found = order[np.maximum(at, 0)]
    return np.where((at >= 0) & (ids[found] == wanted), found, -1)


def stacks_of(pools: Pools, wanted: Column) -> tuple[StackColumns, Column]:
    """Return (distinct stacks, which of them each wanted stack trace is); what is not there is ``[unknown]``.

    Raises:
        CorruptRecordError: the stacks would be too long as text.
    """
    traces = pools.stacks()
    at = last_of(traces.ids, wanted)
    begins = np.cumsum(traces.length) - traces.length
    depth = np.where(at >= 0, np.concatenate((traces.length, [0]))[at], 0)
    begin = np.concatenate((begins, [0]))[at]
    total = int(depth.sum())
    if total > MAX_STACK_FRAMES:
        raise CorruptRecordError(f"the JFR recording's stacks have more than {MAX_STACK_FRAMES} frames")
    stops = np.cumsum(depth)
    # Leaf first in the recording, root first in the contract.
    place = np.repeat(begin + depth - 1, depth) - (np.arange(total) - np.repeat(stops - depth, depth))
    absent = np.zeros(int(traces.length.sum()), np.int64)
    method = traces.frames.get("method", absent)[place] if total else place
    line = traces.frames.get("lineNumber", absent)[place] if total else place
    line = np.clip(line.astype(np.int32), 0, None).astype(np.int64)
    distinct, frame = np.unique(np.stack((method, line)), axis=1, return_inverse=True)
    methods, which = np.unique(distinct[0], return_inverse=True)
    names = _names(pools, methods)
    frames = [
        stacks.frame_text(name, file, 0 if native else number)
        for (name, file, native), number in zip(
            (names[i] for i in which.reshape(-1).tolist()), distinct[1].tolist(), strict=True
        )
    ]
    return distinct_stacks(frame.reshape(-1), depth, pa.array(frames, pa.string()))


def _names(pools: Pools, methods: Column) -> list[tuple[str, str, bool]]:
    """Return (function, file, whether it is native code) of each method."""
    table, classes = pools.table("jdk.types.Method"), pools.table("java.lang.Class")
    symbols = pools.texts.get("jdk.types.Symbol", {})
    none = np.zeros(0, np.int64)
    at = last_of(table.get("", none), methods)

    def picked(source: dict[str, Column], name: str, place: Column) -> Column:
        return (
            np.concatenate((source.get(name, none), [0]))[place] if name in source else np.zeros(len(place), np.int64)
        )

    kind = last_of(classes.get("", none), picked(table, "type", at))
    columns = (picked(classes, "name", kind), picked(table, "name", at), picked(table, "descriptor", at))
    found = []
    for owner, name, descriptor in zip(*(column.tolist() for column in columns), strict=True):
        home = symbols.get(owner, b"").decode("utf-8", "replace")
        function = symbols.get(name, b"").decode("utf-8", "replace")
        if symbols.get(descriptor) == _NATIVE:
            found.append((function or (f"[{home}]" if home else ""), home, True))
        else:
            home = _NUMBERED.sub(r"\1", _ADDRESS.sub("", home)).replace("/", ".")
            found.append((f"{home}.{function}" if home and function else home or function, "", False))
    return found
