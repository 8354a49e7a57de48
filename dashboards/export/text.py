"""Writes a profile as folded text (Brendan Gregg's FlameGraph) and as speedscope's JSON (its file format schema)."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dashboards.export.stacks import Stacks

_UNITS = {"nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def folded(stacks: Stacks) -> bytes:
    """Return a line for each distinct path of functions: ``root;…;leaf value``.

    The format has no files and lines, and no way to write a semicolon or a line feed in a name: they become ``:`` and a
    space.
    """
    names = pa.array(["".join(_FOLDED.get(c, c) for c in name) for name in stacks.names], pa.string())
    paths = pa.ListArray.from_arrays(pa.array(stacks.start, pa.int32()), names.take(pa.array(stacks.frame)))
    table = pa.table({"path": pc.binary_join(paths, ";"), "value": stacks.value})
    table = table.group_by("path", use_threads=False).aggregate([("value", "sum")])
    lines = pc.binary_join_element_wise(table.column("path"), table.column("value_sum").cast(pa.string()), " ")
    return "".join(f"{line}\n" for line in lines.to_pylist()).encode("utf-8", "replace")


_FOLDED = {";": ":", "\n": " ", "\r": " "}


def speedscope(stacks: Stacks) -> bytes:
    """Return a sampled profile; weights are in the profile's unit."""
    frames = [
        {"name": name, **({"file": file} if file else {}), **({"line": line} if line else {})}
        for name, file, line in zip(stacks.names, stacks.files, stacks.lines.tolist(), strict=True)
    ]
    profile = {
        "type": "sampled",
        "name": stacks.type,
        "unit": stacks.unit if stacks.unit in _UNITS else "none",
        "startValue": 0,
        "endValue": int(stacks.value.sum()),
        "samples": [part.tolist() for part in np.split(stacks.frame, stacks.start[1:-1])] if len(stacks.value) else [],
        "weights": stacks.value.tolist(),
    }
    document = {"$schema": _SCHEMA, "shared": {"frames": frames}, "profiles": [profile], "exporter": "perfstream"}
    return json.dumps(document, separators=(",", ":")).encode()
