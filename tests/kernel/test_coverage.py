"""``profile coverage`` of real programs: with and without symbols, with and without frame pointers."""

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
ROUNDS = 2503
FRAMES, NONE = "-fno-omit-frame-pointer", "-fomit-frame-pointer"
# how it is compiled, whether it is stripped; how much of it is unwound, and named; what is said of it
KINDS = {
    "whole": (FRAMES, False, 1, 1, ""),
    "frameless": (NONE, False, 0, 1, "no frame pointers"),
    "stripped": (FRAMES, True, 1, 0, "no symbols"),
    "bare": (NONE, True, 0, 0, "neither symbols nor frame pointers"),
}


@pytest.fixture
def binaries(tmp_path):
    for name, (frames, stripped, *_) in KINDS.items():
        target = tmp_path / name
        subprocess.run(
            ["gcc", "-O1", frames, f"-DROUNDS={ROUNDS}", *(["-s"] if stripped else []), "-o", target,
             PROGRAMS / "split" / "split.c"], check=True, timeout=120,
        )  # fmt: skip
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
        programs = [running.enter_context(Known(binaries / name, service=f"{service}-{name}")) for name in KINDS]
        for program in programs:
            program.go()
        for program in programs:
            program.answer()
        found = taken(collector)
    write(store, [row for row in found.rows if row["service"].startswith(service)])
    reading = connect(f"{store.dsn}/covered")
    for name, (_frames, _stripped, unwound, named, said) in KINDS.items():
        rows = coverage.read(reading, selection.make(f"{service}-{name}"))
        print(name, rows)
        mine = rows[0]
        assert mine["binary"] == str(binaries / name)
        assert mine["share"] > 0.9
        assert mine["value"] > 200_000_000
        shares = (mine["unwound_share"], mine["named_share"], mine["complete_share"])
        assert shares == pytest.approx((unwound, named, unwound * named), abs=0.03), name
        assert mine["note"] == said
