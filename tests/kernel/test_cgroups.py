"""Whose process it is, by real cgroups of this machine: every layout that runtimes use, on v1 and on v2."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from collectors.cgroup_ids import CgroupIds, mounted
from collectors.trace.exec import Exec
from collectors.workload import Pod, Workload, Workloads
from tests.cgroup_trees import ID, UID, V1, V2
from tests.kernel.cgroups import cgroup, hierarchy, process_in
from tests.kernel.known import Taken, started, until

RUNS = 97
PODS = {ID: Pod("ns", "pod-1", "web", "shop", "v2"), UID: Pod("ns", "pod-1", "", "shop")}


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    """Where cgroup v2 is mounted; where it is not, it is mounted for the test."""
    with contextlib.ExitStack() as stack:
        yield mounted() or stack.enter_context(hierarchy(tmp_path_factory.mktemp("v2"), "cgroup2"))


@pytest.fixture(scope="module")
def v1(tmp_path_factory):
    """A v1 hierarchy of our own, without controllers: any node can have one beside whatever it has."""
    with hierarchy(tmp_path_factory.mktemp("v1"), "cgroup", "-o", "none,name=perfstream") as root:
        yield root


def wanted(layout):
    pod = PODS.get(layout.container) or PODS.get(layout.pod) or Pod("", "")
    container = pod.container or layout.container[:12]
    return pod.namespace, pod.pod, container, pod.service or pod.container or layout.unit or "sleep"


def told(workload):
    return workload.namespace, workload.pod, workload.container, workload.service


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_process_in_every_layout(request, version):
    root = request.getfixturevalue(version)
    for layout in V1 if version == "v1" else V2:
        with cgroup(root, layout.path) as directory, process_in(directory) as process:
            workloads = Workloads(PODS)
            assert told(workloads.of(process.pid)) == wanted(layout), layout.name


def test_an_id_leads_to_its_cgroup_by_handle_and_by_walking(v2):
    by_handle, walking = CgroupIds(v2), CgroupIds(v2)
    walking._refused = True
    for layout in V2:
        with cgroup(v2, layout.path) as directory:
            number = directory.stat().st_ino
            places = by_handle.place(number), CgroupIds(v2).place(number)
            walking._walked = float("-inf")
            for place in (*places, walking.place(number)):
                assert (place.container_id, place.pod_uid, place.unit) == (layout.container, layout.pod, layout.unit)
        # The cgroup is gone: who asked before still knows.
        assert by_handle.place(number).container_id == layout.container
        assert CgroupIds(v2).place(number) is None
    assert not by_handle._refused


def test_a_process_that_is_gone_and_was_never_looked_at(v2):
    layout = next(each for each in V2 if each.name == "containerd-kubelet-systemd")
    with cgroup(v2, layout.path) as directory, process_in(directory, "OTEL_SERVICE_NAME=named") as process:
        number = directory.stat().st_ino
        process.kill()
        process.wait()
        assert Workloads(PODS).of(process.pid, number, "sleep") == Workload("ns", "pod-1", "web", "shop", "v2")
        assert Workloads().of(process.pid, number, "sleep") == Workload(container=ID[:12], service="sleep")


def test_processes_that_live_a_moment_in_a_cgroup_that_is_gone_before_they_are_read(v2):
    """Each of a prime number of programs, started into a container by a process outside of it, as runtimes do."""
    layout = next(each for each in V2 if each.name == "crio-systemd")
    taken = Taken()
    with started(Exec(Workloads(PODS))) as collector:
        with cgroup(v2, layout.path) as directory:
            script = f"i=0; while [ $i -lt {RUNS} ]; do i=$((i+1)); (echo 0 >$0; exec /bin/true); done"
            subprocess.run(["/bin/sh", "-c", script, str(directory / "cgroup.procs")], check=True, timeout=60)
        until(lambda: len(mine(taken.take(collector))) >= RUNS)
    assert taken.lost == 0
    assert len(mine(taken)) == RUNS
    assert {(row["namespace"], row["pod"], row["container"], row["service"]) for row in mine(taken)} == {
        ("ns", "pod-1", "web", "shop")
    }


def mine(taken):
    return [row for row in taken.rows if row["detail"] == "/bin/true" and row["pod"] == "pod-1"]


def test_what_the_agent_keeps_of_its_rights_is_enough(v2):
    code = (
        "import sys; from collectors import privileges; privileges.drop();"
        "from collectors.cgroup_ids import CgroupIds; from pathlib import Path;"
        "ids = CgroupIds(Path(sys.argv[1])); print(ids.place(int(sys.argv[2])).container_id, ids._refused)"
    )
    with cgroup(v2, f"docker/{ID}") as directory:
        done = subprocess.run(
            [sys.executable, "-c", code, str(v2), str(directory.stat().st_ino)], capture_output=True, text=True,
            timeout=60, cwd=Path(__file__).parents[2], check=True,
        )  # fmt: skip
    assert done.stdout.split() == [ID, "False"]
