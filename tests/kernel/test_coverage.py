"""``profile coverage`` of real programs: with and without symbols, with and without frame pointers, and one in Go."""

import subprocess
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from collectors.profile.cpu import ProfileCpu
from dashboards import coverage, selection
from dashboards.store import connect
from runtime.settings import ClickHouseSettings
from sinks.migrate import migrate
from streams.schema.stacks import split
from tests.integration.conftest import start_store
from tests.integration.known_rows import _inserter
from tests.kernel.known import PROGRAMS, Known, started, taken

HZ = 997.0
ROUNDS = 29
SPLIT = PROGRAMS / "split"
FRAMES, NONE = "-fno-omit-frame-pointer", "-fomit-frame-pointer"
GCC = ("gcc", "-O1", f"-DROUNDS={ROUNDS}", SPLIT / "split.c")
# how it is built; how much of it is unwound, and named; what is said of it
KINDS = {
    "whole": ((*GCC, FRAMES), 1, 1, ""),
    "frameless": ((*GCC, NONE), 0, 1, "no frame pointers"),
    "stripped": ((*GCC, FRAMES, "-s"), 1, 0, "no symbols"),
    "bare": ((*GCC, NONE, "-s"), 0, 0, "neither symbols nor frame pointers"),
    "go": (("go", "build", SPLIT / "split.go"), 1, 1, ""),
}


@pytest.fixture
def binaries(tmp_path):
    for name, (build, *_) in KINDS.items():
        at = -1 if build[0] == "go" else len(build)
        command = [*build[:at], "-o", tmp_path / name, *build[at:]]
        subprocess.run(command, check=True, timeout=120)
    return tmp_path


@pytest.fixture
def store(tmp_path):
    one = start_store(tmp_path / "store")
    yield one
    one.stop()


def write(store, rows):
    """Put the collector's rows into the store's tables, as the sink does."""
    store.post("CREATE DATABASE covered")
    migrate(ClickHouseSettings(dsn=f"{store.dsn}/covered"))
    insert = _inserter(store, "covered")
    stacks = {row["stack"]["id"]: split(row["stack"]["frames"]) for row in rows}
    insert("stacks", [
        {"stack_id": number, "functions": [f.function for f in frames], "files": [f.file for f in frames],
         "lines": [f.line for f in frames], "last_seen": int(time.time())} for number, frames in stacks.items()
    ])  # fmt: skip
    insert("samples", [
        {name: row[name] for name in row if name not in ("stack", "time_ns")}
        | {"stack_id": row["stack"]["id"], "cluster": "c", "node": "n",
           "time": datetime.fromtimestamp(row["time_ns"] / 1e9, UTC).isoformat(timespec="milliseconds")}
        for row in rows
    ])  # fmt: skip


def test_each_program_lands_where_it_belongs(binaries, store, service, workloads):
    with ExitStack() as running, started(ProfileCpu(workloads, frequency_hz=HZ)) as collector:
        programs = [
            running.enter_context(Known(binaries / name, ROUNDS, service=f"{service}-{name}")) for name in KINDS
        ]
        for program in programs:
            program.go()
        for program in programs:
            program.answer()
        found = taken(collector)
    write(store, [row for row in found.rows if row["service"].startswith(service)])
    reading = connect(f"{store.dsn}/covered")
    for name, (_build, unwound, named, said) in KINDS.items():
        rows = coverage.read(reading, selection.make(f"{service}-{name}"))
        print(name, rows)
        mine = rows[0]
        assert mine["binary"] == str(binaries / name)
        assert mine["share"] > 0.9
        assert mine["value"] > 200_000_000
        shares = (mine["unwound_share"], mine["named_share"], mine["complete_share"])
        assert shares == pytest.approx((unwound, named, unwound * named), abs=0.03), name
        assert mine["note"] == said
