"""Who a process is, from a made-up /proc: precedence, inheritance, exits, and cgroup paths."""

import itertools

import numpy as np
import pytest

from collectors.cgroup_path import CgroupPlace, place_of
from collectors.workload import Pod, Workload, Workloads
from tests.cgroup_trees import ID, UID, V1, V2, of_v1, of_v2

CONTAINER = "0123456789abcdef" * 4
POD_UID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def proc(tmp_path):
    return FakeProc(tmp_path)


class FakeProc:
    def __init__(self, path):
        self.path, self._inodes = path / "proc", itertools.count()
        self._files = path / "files"
        self._files.mkdir()

    def put(self, pid, exe="app", *, environ=(), cgroup="0::/", started=100, state="S", flags=0):
        home = self.path / str(pid)
        home.mkdir(parents=True, exist_ok=True)
        middle = f"1 1 1 0 -1 {flags} " + "0 " * 12
        (home / "stat").write_text(f"{pid} (a) b) {state} {middle}{started} 0\n")
        (home / "exe").unlink(missing_ok=True)
        if exe:
            target = self._files / f"{next(self._inodes)}" / exe
            target.parent.mkdir()
            target.write_text("#!")
            (home / "exe").symlink_to(target)
        (home / "environ").write_bytes("\0".join(environ).encode())
        (home / "cgroup").write_text(cgroup)

    def exits(self, pid):
        for path in (self.path / str(pid)).iterdir():
            path.unlink()


def resolver(proc, pods=None, now=lambda: 0.0, **options):
    return Workloads(pods, proc=proc.path, clock=now, **options)


@pytest.mark.parametrize(
    ("environ", "cgroup", "wanted"),
    [
        ([], "0::/", Workload(service="app")),
        (["PATH=/", "SECRET=x"], "0::/system.slice/nginx.service", Workload(service="nginx")),
        (["PYROSCOPE_APPLICATION_NAME=py{env=x}"], "0::/system.slice/nginx.service", Workload(service="py")),
        (["OTEL_SERVICE_NAME=named", "PYROSCOPE_APPLICATION_NAME=py"], "0::/", Workload(service="named")),
        (
            ["OTEL_RESOURCE_ATTRIBUTES=service.name=my%20app,service.version=v1.2, service.namespace = shop"],
            "0::/",
            Workload(namespace="shop", service="my app", version="v1.2"),
        ),
        (["OTEL_SERVICE_NAME=a\nb"], "0::/", Workload(service="a b")),
        (["OTEL_SERVICE_NAME=x"], f"0::/docker/{CONTAINER}", Workload(container=CONTAINER[:12], service="x")),
    ],
)
def test_where_a_name_comes_from(proc, environ, cgroup, wanted):
    proc.put(7, environ=environ, cgroup=cgroup)
    assert resolver(proc).of(7, comm="comm") == wanted


def test_a_pod_comes_first_by_container_or_by_uid(proc):
    pods = {CONTAINER: Pod("ns", "pod-1", "web", "shop", "v2"), POD_UID: Pod("ns", "pod-2")}
    slice_of = f"/kubepods.slice/kubepods-pod{POD_UID.replace('-', '_')}.slice/cri-containerd-"
    proc.put(1, environ=["OTEL_SERVICE_NAME=x"], cgroup=f"0::{slice_of}{CONTAINER}.scope")
    proc.put(2, environ=["OTEL_SERVICE_NAME=x"], cgroup=f"0::{slice_of}{'f' * 64}.scope")
    workloads = resolver(proc, pods)
    assert workloads.of(1) == Workload("ns", "pod-1", "web", "shop", "v2")
    assert workloads.of(2) == Workload("ns", "pod-2", "f" * 12, "x")


def test_a_process_is_known_after_its_exit_and_not_mistaken_for_the_next(proc):
    now = [0.0]
    workloads = resolver(proc, now=lambda: now[0])
    proc.put(7, environ=["OTEL_SERVICE_NAME=one"])
    workloads.prefetch([7])
    proc.exits(7)
    now[0] = 5.0
    assert workloads.of(7, comm="comm").service == "one"
    assert workloads.of(8, comm="comm").service == "comm"
    assert workloads.of(9).service == "unknown"
    proc.put(7, environ=["OTEL_SERVICE_NAME=two"], started=200)
    now[0] = 10.0
    assert workloads.of(7).service == "two"


def test_an_exec_is_another_program_of_the_same_process(proc):
    now = [0.0]
    workloads = resolver(proc, now=lambda: now[0])
    proc.put(7, "sh")
    assert workloads.of(7).service == "sh"
    proc.put(7, "server")
    assert workloads.of(7).service == "sh"  # looked at again once a second
    workloads.observe_exec(7, "server", "/bin/server")
    assert workloads.of(7).service == "server"


def test_a_process_on_its_way_out_keeps_its_name(proc):
    now = [0.0]
    workloads = resolver(proc, now=lambda: now[0])
    proc.put(7, environ=["OTEL_SERVICE_NAME=one"])
    assert workloads.of(7).service == "one"
    proc.put(7, exe="", flags=4, state="R")  # PF_EXITING: no memory any more, not yet a zombie
    now[0] = 5.0
    assert workloads.of(7, comm="app").service == "one"
    proc.put(8, exe="", flags=4, state="R")
    assert workloads.of(8, comm="app").service == "app"


def test_a_child_that_is_gone_belongs_to_the_service_of_its_parent(proc):
    proc.put(1, "server", environ=["OTEL_SERVICE_NAME=shop", "OTEL_RESOURCE_ATTRIBUTES=service.version=v1"])
    proc.put(2, "bash")
    workloads = resolver(proc)
    workloads.observe_exec(100, "date", "/bin/date", 1)
    workloads.observe_exec(101, "date", "/bin/date", 2)
    workloads.observe_exec(102, "date")
    workloads.prefetch([103, 104, 100], [1, 2, 2])
    assert workloads.of(100) == workloads.of(103) == Workload(service="shop", version="v1")
    assert [workloads.of(pid, comm="c").service for pid in (101, 102, 104)] == ["date", "date", "c"]


@pytest.mark.parametrize(
    ("variables", "above", "wanted"),
    [
        ({"OTEL_SERVICE_NAME": "own"}, ["OTEL_SERVICE_NAME=shop"], Workload(service="own")),
        # Its parent's name came from a variable that it was not given.
        ({}, ["OTEL_SERVICE_NAME=shop"], Workload(service="date")),
        ({}, [], Workload(service="date")),
        (None, ["OTEL_SERVICE_NAME=shop"], Workload(service="shop")),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=own,service.version=v1,service.namespace=n"},
            [],
            Workload(namespace="n", service="own", version="v1"),
        ),
    ],
)
def test_what_a_process_was_given_names_it_when_it_is_gone(proc, variables, above, wanted):
    proc.put(1, "server", environ=above)
    workloads = resolver(proc)
    workloads.observe_exec(100, "date", "/bin/date", 1, variables=variables)
    assert workloads.of(100, comm="date") == wanted


@pytest.mark.parametrize(
    ("variables", "pod", "wanted"),
    [
        # The pod's labels come first, then what it was given, then the container's name; as for a living process.
        ({"OTEL_SERVICE_NAME": "own"}, Pod("ns", "pod-1", "web", "shop", "v2"), ("ns", "pod-1", "web", "shop", "v2")),
        ({"OTEL_SERVICE_NAME": "own"}, Pod("ns", "pod-1", "web"), ("ns", "pod-1", "web", "own", "")),
        ({}, Pod("ns", "pod-1", "web"), ("ns", "pod-1", "web", "web", "")),
    ],
)
@pytest.mark.parametrize("alive", [True, False])
def test_what_a_process_was_given_in_a_pod(proc, variables, pod, wanted, alive):
    container = f"0::/kubepods/pod{POD_UID}/{CONTAINER}"
    proc.put(1, "server", environ=["OTEL_SERVICE_NAME=above"], cgroup=container)
    if alive:
        proc.put(100, "date", cgroup=container)
    workloads = resolver(proc, {CONTAINER: pod})
    workloads.observe_exec(100, "date", "/bin/date", 1, variables=variables)
    found = workloads.of(100, comm="date")
    if not alive and wanted[3] == "web":
        wanted = (*wanted[:3], "date", "")  # without its cgroup's id nothing says that the container names it
    assert (found.namespace, found.pod, found.container, found.service, found.version) == wanted


def test_a_kernel_thread_has_the_name_of_its_kind(proc):
    proc.put(5, exe="")
    (proc.path / "5/cmdline").write_bytes(b"")
    (proc.path / "5/comm").write_text("kworker/0:1-events\n")
    assert resolver(proc).of(5).service == "kworker"


def test_columns_are_as_long_as_what_was_asked(proc):
    for pid in (1, 2):
        proc.put(pid, environ=[f"OTEL_SERVICE_NAME=s{pid}"])
    pids = np.array([2, 1, 2, 9], np.uint32)
    columns = resolver(proc).columns(pids, np.zeros(4, np.uint64), [b"x\0y", "x", b"x", b"gone\0\0"])
    assert columns["service"].to_pylist() == ["s2", "s1", "s2", "gone"]
    assert all(len(column) == 4 for column in columns.values())
    empty = resolver(proc).columns(np.zeros(0, np.uint32), np.zeros(0, np.uint64), [])
    assert [len(column) for column in empty.values()] == [0] * 5


def test_memory_is_bounded(proc):
    workloads = resolver(proc, bound=10)
    for pid in range(1, 30):
        proc.put(pid)
        workloads.of(pid)
    assert workloads.stats() == {"processes": 10}


def test_a_gone_process_of_a_container_that_is_known(proc):
    proc.put(1, environ=["OTEL_SERVICE_NAME=x"], cgroup=f"0::/docker/{CONTAINER}")
    workloads = resolver(proc)
    workloads.of(1, cgroup_id=77)
    assert workloads.of(2, cgroup_id=77, comm="sh").service == "x"
    assert workloads.of(2, cgroup_id=78, comm="sh").service == "sh"


def test_what_belongs_to_no_process_is_told_by_its_cgroup(proc):
    proc.put(1, environ=["OTEL_SERVICE_NAME=x"], cgroup=f"0::/docker/{CONTAINER}")
    workloads = resolver(proc)
    workloads.of(1, cgroup_id=77)
    columns = workloads.columns(np.zeros(4, np.uint32), np.array([0, 77, 78, 77], np.uint64), [""] * 4)
    assert columns["service"].to_pylist() == ["unknown", "x", "unknown", "x"]


@pytest.mark.parametrize("layout", V2, ids=lambda layout: layout.name)
def test_where_runtimes_put_their_containers_on_v2(layout):
    assert place_of(of_v2(layout)) == CgroupPlace(layout.container, layout.pod, layout.unit)


@pytest.mark.parametrize("layout", V1, ids=lambda layout: layout.name)
def test_where_runtimes_put_their_containers_on_v1(layout):
    assert place_of(of_v1(layout)) == CgroupPlace(layout.container, layout.pod, layout.unit)


def test_a_process_of_no_container():
    assert place_of("0::/\n") == place_of("") == CgroupPlace()


class Cgroups:
    """Answers as the node's cgroups would."""

    def __init__(self, **paths):
        self.paths = paths

    def place(self, cgroup_id):
        path = self.paths.get(f"c{cgroup_id}")
        return None if path is None else place_of(f"0::{path}")


PODS = {ID: Pod("ns", "pod-1", "web", "shop", "v2"), UID: Pod("ns", "pod-1", "", "shop")}


def test_a_process_that_was_never_seen_is_told_by_its_cgroup(proc):
    other = "ab" * 32
    places = Cgroups(
        c5=f"/kubepods/pod{UID}/{ID}", c6=f"/kubepods/pod{UID}/{other}", c7="/system.slice/cron.service", c8="/",
        c9=f"/docker/{other}",
    )  # fmt: skip
    proc.put(1, "containerd-shim", cgroup="0::/system.slice/containerd.service")
    workloads = resolver(proc, PODS, cgroups=places)
    assert workloads.of(90, 5, "sh") == Workload("ns", "pod-1", "web", "shop", "v2")
    # A container that the API has not named yet has its pod's names.
    assert workloads.of(91, 6, "sh") == Workload("ns", "pod-1", other[:12], "shop")
    assert workloads.of(92, 7, "sh") == Workload(service="cron")
    assert workloads.of(93, 8, "sh") == workloads.of(94, 4, "sh") == Workload(service="sh")
    assert workloads.of(95, 9, "sh") == Workload(container=other[:12], service="sh")
    # Its parent was the runtime's: what that declares says nothing of it.
    workloads.observe_exec(96, "sh", "/bin/sh", 1, 5)
    workloads.observe_exec(97, "sh", "/bin/sh", 1)
    workloads.prefetch([98, 99], [1, 1], [5, 7])
    assert workloads.of(96).pod == workloads.of(98).pod == "pod-1"
    assert workloads.of(97).service == workloads.of(99).service == "containerd"
    assert workloads.of(97, 9, "sh") == Workload(container=other[:12], service="sh")


@pytest.mark.parametrize("cgroup_id", [1, 7])
def test_containers_that_share_a_v2_cgroup_are_not_mixed_up(proc, cgroup_id):
    """With cgroup v1 the kernel tells the id of the v2 root, or of the runtime's own unit."""
    places = Cgroups(c7="/system.slice/docker.service")
    proc.put(1, environ=["OTEL_SERVICE_NAME=one"], cgroup=f"4:memory:/docker/{ID}\n0::/system.slice/docker.service")
    workloads = resolver(proc, cgroups=places)
    assert workloads.of(1, cgroup_id).service == "one"
    assert workloads.of(50, cgroup_id, "sh").container == ""


def test_what_a_process_of_the_same_container_declares_is_nearer_than_its_labels(proc):
    places = Cgroups(c5=f"/docker/{ID}")
    proc.put(1, environ=["OTEL_SERVICE_NAME=named"], cgroup=f"0::/docker/{ID}")
    proc.put(2, cgroup=f"0::/docker/{ID}")
    workloads = resolver(proc, cgroups=places)
    workloads.observe_exec(50, "date", "/bin/date", 1, 5)
    assert workloads.of(50, 5) == Workload(container=ID[:12], service="named")
    workloads.of(2, 5)
    assert workloads.of(51, 5, "sh") == Workload(container=ID[:12], service="app")


def test_a_container_that_the_api_names_later_is_looked_up_again_for_a_minute(proc):
    now, pods = [0.0], {}
    proc.put(1, "server", cgroup=f"0::/kubepods/pod{UID}/{ID}")
    proc.put(2, "server", cgroup="0::/docker/" + "ab" * 32)
    workloads = resolver(proc, pods, now=lambda: now[0])
    assert workloads.of(1) == Workload(container=ID[:12], service="server")
    assert workloads.of(2).container == "ab" * 6
    pods.update(PODS)
    now[0] = 2.0
    assert workloads.of(1) == Workload("ns", "pod-1", "web", "shop", "v2")
    now[0] = 70.0
    workloads.of(2)
    pods["ab" * 32] = Pod("ns", "late")
    now[0] = 72.0
    assert workloads.of(2).pod == ""


def test_a_container_has_its_name_where_nothing_names_a_service(proc):
    pods = {ID: Pod("ns", "pod-1", "web")}
    proc.put(1, "python3.11", cgroup=f"0::/kubepods/pod{UID}/{ID}")
    proc.put(2, "python3.11", environ=["OTEL_SERVICE_NAME=named"], cgroup=f"0::/kubepods/pod{UID}/{ID}")
    workloads = resolver(proc, pods)
    assert (workloads.of(1).service, workloads.of(2).service) == ("web", "named")
