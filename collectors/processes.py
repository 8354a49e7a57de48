"""The processes of this machine as ``/proc`` shows them, read in one go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """What ``/proc/PID/stat`` says. ``started_ticks`` since boot; with ``pid`` it is the process's identity."""

    pid: int
    ppid: int
    uid: int
    comm: str
    state: str
    user_ns: int
    system_ns: int
    threads: int
    started_ticks: int
    rss_bytes: int


def pids(proc: Path = PROC) -> list[int]:
    """Return the numbers of all processes, ascending."""
    return sorted(int(name) for name in os.listdir(proc) if name.isdigit())  # noqa: PTH208 - names, not paths


def processes(proc: Path = PROC) -> Iterator[Process]:
    """Yield all processes, by number; those that end meanwhile may be missing."""
    for pid in pids(proc):
        if (found := process(pid, proc)) is not None:
            yield found


def process(pid: int, proc: Path = PROC) -> Process | None:
    """Return one process; None when it is gone. Fields: proc_pid_stat(5)."""
    directory = f"{proc}/{pid}"
    try:
        with open(f"{directory}/stat", "rb") as file:  # noqa: PTH123 - thousands of them
            text = file.read()
        uid = os.stat(directory).st_uid  # noqa: PTH116
    except OSError:
        return None
    comm, _, rest = text.partition(b"(")[2].rpartition(b") ")
    words = rest.split()
    return Process(
        pid=pid,
        ppid=int(words[1]),
        uid=uid,
        comm=comm.decode(errors="replace"),
        state=words[0].decode(),
        user_ns=int(words[11]) * TICK_NS,
        system_ns=int(words[12]) * TICK_NS,
        threads=int(words[17]),
        started_ticks=int(words[19]),
        rss_bytes=int(words[21]) * PAGE,
    )


def numbers(path: str, wanted: tuple[bytes, ...]) -> tuple[int, ...]:
    """Return the numbers of the lines ``name: number`` of a file, in the order of ``wanted``; 0 where missing."""
    found = dict.fromkeys(wanted, 0)
    with suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
        for line in file:
            name, _, rest = line.partition(b":")
            if name in found:
                found[name] = int(rest.split()[0])
    return tuple(found.values())
