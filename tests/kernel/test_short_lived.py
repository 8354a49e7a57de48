"""Processes that were gone before anybody could look at them: each has the name it was given, and its container."""

import errno
import subprocess
from collections import Counter

from collectors.trace.exec import Exec, ExecArguments
from collectors.wanted import Wanted
from collectors.workload import Pod, Workloads
from tests.cgroup_trees import ID
from tests.kernel.known import Known, Taken, started
from tests.kernel.test_cgroups import cgroup, v2  # noqa: F401 - a fixture

MANY, FEW = 997, 101
MINE = Wanted(comm="perfgadgets")  # nobody takes records away in time, so others must not fill the ring


def names(count):
    """What ``gadgets.c`` gives each of its short processes: (service, version, namespace)."""
    given = []
    for number in range(count):
        own = f"short-{number}"
        given.append(((own, "", ""), (own, "v7", "shop"), (own, "", ""), ("perfgadgets", "", ""))[number % 4])
    return given


def rows_of_gone(collector, program):
    """Run it to its end, and only then look at what the kernel has told."""
    collector.start(live=True)
    pids = program.run()["pids"]
    records = collector.poll(10)
    collector.observe(records)
    rows = {row["pid"]: row for row in collector.rows(records).to_pylist() if row["ppid"] == program.pid}
    assert collector.lost() == 0
    return [rows[pid] for pid in pids]


def test_each_has_the_name_it_was_given(gadgets, service):
    with Known(gadgets, "short", MANY, service=service) as program:
        collector = Exec(Workloads(), wanted=MINE)
        try:
            rows = rows_of_gone(collector, program)
        finally:
            collector.close()
    assert len(rows) == MANY
    # Not the parent's, which has another one: neither those that have one of their own, nor those that have none.
    assert [(row["service"], row["version"], row["namespace"]) for row in rows] == names(MANY)
    assert "SECRET" not in str(rows)
    assert all(dict(row["attributes"]).keys() == {"cwd"} for row in rows)


def test_each_is_in_its_container(gadgets, service, v2):  # noqa: F811 - the fixture
    pods = {ID: Pod("ns", "pod-1", "web")}
    with cgroup(v2, f"docker/{ID}") as directory, Known(gadgets, "short", FEW, service=service) as program:
        (directory / "cgroup.procs").write_text(str(program.pid))
        collector = Exec(Workloads(pods), wanted=MINE)
        try:
            rows = rows_of_gone(collector, program)
        finally:
            collector.close()
    assert {(row["namespace"], row["pod"], row["container"]) for row in rows} == {("ns", "pod-1", "web")}
    # What has no name of its own is called after its container.
    wanted = [("web" if name == "perfgadgets" else name, version) for name, version, _ in names(FEW)]
    assert [(row["service"], row["version"]) for row in rows] == wanted


def test_the_edges_of_an_environment(tmp_path):
    """What is beyond them is not guessed: the process is then called after its program."""
    program = tmp_path / "perfedges"
    program.symlink_to("/bin/true")
    many = {f"V{number}": "x" for number in range(510)}
    cases = [
        (many | {"OTEL_SERVICE_NAME": "late"}, "late"),
        (many | {"A": "", "B": "", "OTEL_SERVICE_NAME": "later"}, "perfedges"),
        ({"OTEL_SERVICE_NAME": "n" * 127}, "n" * 127),
        ({"OTEL_SERVICE_NAME": "n" * 128}, "perfedges"),
        ({"OTEL_RESOURCE_ATTRIBUTES": f"service.name=a,pad={'x' * 616}"}, "a"),
        ({"OTEL_RESOURCE_ATTRIBUTES": f"service.name=a,pad={'x' * 700}"}, "perfedges"),
        ({"A": "x" * 5000, "OTEL_SERVICE_NAME": "after"}, "after"),
        # A value whose second piece looks like a variable.
        ({"A": "x" * 2045 + "OTEL_SERVICE_NAME=inside"}, "perfedges"),
        ({"OTEL_SERVICE_NAME": ""}, "perfedges"),
        ({}, "perfedges"),
    ]
    collector = Exec(Workloads(), wanted=Wanted(comm="perfedges"))
    try:
        collector.start(live=True)
        for environment, _ in cases:
            subprocess.run([program], env=environment, check=True)
        records = collector.poll(10)
        collector.observe(records)
        told = collector.rows(records)["service"].to_pylist()
    finally:
        collector.close()
    assert told == [name for _, name in cases]


def test_arguments_and_the_working_directory(known, tmp_path, service):
    place = tmp_path / "some where"
    place.mkdir()
    with started(ExecArguments(Workloads())) as collector:
        with Known(known, "exec", 13, 5, service=service, prefix=("env", "-C", place)) as program:
            program.run()
        mine = [row for row in Taken().take(collector).rows if program.pid in (row["pid"], row["ppid"])]
    mine = [row for row in mine if row["comm"] != "env" and row["detail"].startswith(("/proc", "/none", str(known)))]
    assert {dict(row["attributes"])["cwd"] for row in mine} == {str(place)}
    assert Counter((dict(row["attributes"])["args"], row["result"]) for row in mine) == {
        ("known nothing", 0): 8,
        ("known nothing", -errno.ENOENT): 5,
        (f"{known} exec 13 5", 0): 1,
    }
