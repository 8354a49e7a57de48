"""Which binaries' samples are whole: unwound to where their thread began, and every frame of them named.

A sample belongs to the binary whose code ran: the file of its innermost user frame, ``[kernel]`` when it has none. It
is unwound when one of its frames is a place where threads begin; a C library without symbols does not name that place,
so a nameless frame of it at the root counts too when it has called something. It is named when no frame stands for a
nameless address (``[libfoo.so]``, ``[unknown]``). The kernel walks its own stack by tables, and where every frame has a
line an interpreter told its own: these are unwound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards import reading
from dashboards.queries import Query
from dashboards.selection import Selection
from dashboards.store import Store
from streams.schema.messages import IDENTITY

MAX_BINARIES = 100_000
MOST = 0.5
"""What holds for at least this share of a binary's samples is said of the binary."""

ENTRIES = (
    # glibc and musl: programs and threads
    "_start", "__libc_start_main", "__libc_start_main_impl", "__libc_start_call_main", "libc_start_main_stage2",
    "start_thread", "clone", "__clone", "clone3", "__clone3", "__clone_internal",
    # Go: goroutines, and the stacks that the scheduler switches to
    *(f"runtime.{name}{abi}" for name in ("goexit", "mcall", "mstart", "morestack", "rt0_go", "sigtramp")
      for abi in ("", ".abi0")),
    # V8: what JavaScript is entered by
    "Builtins_JSEntry", "Builtins_JSConstructEntry", "Builtins_JSRunMicrotasksEntry",
)  # fmt: skip
"""Functions that a whole stack has: threads begin in them, or an interpreter's code does."""

MANAGED = "[jit or script]"
SPECIAL = {
    "[exited]": "ended before its names were read",
    "[unknown]": "outside of every mapping",
    "[stack not stored]": "",
}
"""What stands in place of a binary, and why."""
NAMELESS = r"^\[.*\](_\[k\])?$"
C_LIBRARY = r"/(libc|libpthread|ld-musl|ld-linux)[-.][^/]*$"

_OF = """\
    SELECT stack_value, if(known.found, known.binary, '[stack not stored]') AS binary, known.reaches AS reaches,
           known.all_named AS all_named, known.leaf_named AS leaf_named, known.lost AS lost
    FROM (SELECT stack_id, sum(value) AS stack_value FROM samples WHERE @where@ GROUP BY stack_id) AS counted
    LEFT JOIN
    (
        SELECT stack_id, true AS found,
               multiIf(users = 0, '[kernel]',
                       user_lines[-1] > 0 OR startsWith(user_files[-1], '[anon'), {managed:String},
                       user_files[-1] != '', user_files[-1],
                       startsWith(user_names[-1], '['), user_names[-1], '[no file]') AS binary,
               users = 0 OR arrayAll(line -> line > 0, user_lines) OR hasAny(user_names, {entries:Array(String)})
                   OR (users > 1 AND nameless[1] AND user_files[1] != user_files[2]
                       AND match(user_files[1], {c_library:String})) AS reaches,
               NOT has(nameless, 1) AS all_named,
               NOT nameless[if(users = 0, -1, users)] AS leaf_named,
               NOT reaches AND arrayAll(file -> file = binary OR file = '' OR startsWith(file, '['), user_files)
                   AS lost
        FROM
        (
            SELECT stack_id, CAST(any(functions) AS Array(String)) AS names,
                   arrayFirstIndex(name -> endsWith(name, '_[k]'), names) AS kernel_at,
                   toInt64(if(kernel_at = 0, length(names), kernel_at - 1)) AS users,
                   arrayMap(name -> match(name, {nameless:String}), names) AS nameless,
                   arraySlice(names, 1, users) AS user_names,
                   arraySlice(CAST(any(files) AS Array(String)), 1, users) AS user_files,
                   arraySlice(any(lines), 1, users) AS user_lines
            FROM stacks WHERE stack_id IN (SELECT stack_id FROM samples WHERE @where@) GROUP BY stack_id
        )
    ) AS known USING (stack_id)"""
COVERAGE = Query(
    "coverage",
    "SELECT binary, sum(stack_value) AS value, sumIf(stack_value, reaches) AS unwound,\n"
    "       sumIf(stack_value, all_named) AS named, sumIf(stack_value, reaches AND all_named) AS complete,\n"
    "       sumIf(stack_value, leaf_named) AS own_named, sumIf(stack_value, lost) AS lost_inside\n"
    f"FROM (\n{_OF}\n) GROUP BY binary ORDER BY value DESC, binary LIMIT {{n:UInt32}}",
    IDENTITY,
    typed=True,
)


def read(store: Store, selection: Selection) -> list[dict[str, Any]]:
    """Return ``shares`` of a selection, of every binary, the largest first."""
    unit = reading.whole(store, selection)[1]
    bound = reading.source(COVERAGE, selection).bound(
        selection, entries=list(ENTRIES), managed=MANAGED, nameless=NAMELESS, c_library=C_LIBRARY, n=MAX_BINARIES
    )
    return shares(store.rows(*bound), unit)


def shares(sums: Sequence[Mapping[str, Any]], unit: str) -> list[dict[str, Any]]:
    """Return for each binary: value, share (of all), unwound_share, named_share, complete_share (of its own), note.

    Args:
        sums: by binary: value, and how much of it is unwound, named, both (complete), has a name for the place itself
            (own_named), was not unwound though no other binary's frame was met (lost_inside).
        unit: the values' unit.
    """
    whole = sum(row["value"] for row in sums)
    rows = []
    for row in sums:
        part = {key: row[key] / row["value"] if row["value"] else 0.0
                for key in ("unwound", "named", "complete", "own_named", "lost_inside")}  # fmt: skip
        rows.append(
            {"binary": row["binary"], "value": row["value"], "share": row["value"] / whole if whole else 0.0}
            | {f"{key}_share": part[key] for key in ("unwound", "named", "complete")}
            | {"note": note(str(row["binary"]), part), "unit": unit}
        )
    return rows


def note(binary: str, part: Mapping[str, float]) -> str:
    """Return what keeps most of a binary's samples from being whole, "" when nothing does.

    Args:
        binary: its path.
        part: shares (0..1) of its samples: unwound, named, own_named, lost_inside.
    """
    if binary in SPECIAL:
        return SPECIAL[binary]
    nameless = part["own_named"] < MOST
    if binary == MANAGED and nameless:
        return "a JIT without a map (perf-PID.map)"
    if part["lost_inside"] >= MOST:
        return "neither symbols nor frame pointers" if nameless else "no frame pointers"
    if nameless:
        return "no symbols"
    if part["unwound"] < MOST:
        return "called from code without frame pointers"
    return "called from code without symbols" if part["named"] < MOST else ""


def complete(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the share (0..1) of all samples that is unwound and named."""
    return float(sum(row["share"] * row["complete_share"] for row in rows))
