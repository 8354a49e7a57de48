"""oomkill: a real one, inside a memory cgroup that the test makes."""

import os
import signal
import uuid
from pathlib import Path

import pytest

from collectors.trace.oomkill import OomKill
from tests.kernel.known import Known, Taken, started

LIMIT_MB, WANTED_MB, KILLS = 24, 96, 3


@pytest.fixture
def small_cgroup():
    """A cgroup with little memory, in version 1 or 2, whichever holds the memory controller here."""
    v1, root = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if v1.is_dir():
        home, limits = v1, {"memory.limit_in_bytes": LIMIT_MB << 20}
    else:
        home, limits = root, {"memory.max": LIMIT_MB << 20, "memory.swap.max": 0}
        (root / "cgroup.subtree_control").write_text("+memory")
    group = home / f"perfstream-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    for name, value in limits.items():
        (group / name).write_text(str(value))
    # Swap (zram here) would take what does not fit; version 1 may have no limit for it.
    if (group / "memory.swappiness").exists():
        (group / "memory.swappiness").write_text("0")
    yield group
    group.rmdir()


def test_every_kill_for_memory_names_its_victim(known, service, workloads, small_cgroup):
    join = f'echo $$ > {small_cgroup}/cgroup.procs && exec "$@"'
    found, victims = Taken(), {}
    with started(OomKill(workloads)) as collector:
        for number in range(KILLS):
            name = f"{service}-{number}"
            with Known(known, "eat", WANTED_MB, service=name, prefix=("sh", "-c", join, "sh")) as program:
                said = program.run()
                assert os.waitstatus_to_exitcode(said["status"]) == -signal.SIGKILL
                found.take(collector)
                victims[said["victim"]] = name
    assert found.lost == 0
    mine = [row for row in found.rows if row["pid"] in victims]
    assert {row["pid"]: row["service"] for row in mine} == victims
    assert len(mine) == KILLS
    for row in mine:
        attributes = dict(row["attributes"])
        assert (row["kind"], row["comm"], row["uid"], row["result"]) == ("oomkill", "perfknown", 0, -signal.SIGKILL)
        assert row["detail"] == f"perfknown ({row['pid']})"
        assert LIMIT_MB // 2 << 10 < int(attributes["anon_kb"]) <= LIMIT_MB << 10
        assert int(attributes["triggered_by_pid"]) == row["pid"]
