"""Who a process is, from a made-up /proc: precedence, inheritance, exits, and cgroup paths."""

import itertools

import numpy as np
import pytest

from collectors.cgroup_path import CgroupPlace, place_of
from collectors.workload import Pod, Workload, Workloads

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


UNDERSCORED = POD_UID.replace("-", "_")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0::/", CgroupPlace()),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", CgroupPlace()),
        ("0::/user.slice/user@1000.service/app.slice/editor.service", CgroupPlace(unit="editor")),
        ("0::/system.slice/nginx.service", CgroupPlace(unit="nginx")),
        (f"0::/system.slice/docker-{CONTAINER}.scope", CgroupPlace(CONTAINER)),
        (f"12:cpu:/docker/{CONTAINER}\n1:name=systemd:/docker/{CONTAINER}\n0::/", CgroupPlace(CONTAINER)),
        (f"0::/machine.slice/libpod-{CONTAINER}.scope/container", CgroupPlace(CONTAINER)),
        (f"0::/kubepods/burstable/pod{POD_UID}/{CONTAINER}", CgroupPlace(CONTAINER, POD_UID)),
        (
            (
                f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/"
                f"cri-containerd-{CONTAINER}.scope"
            ),
            CgroupPlace(CONTAINER, POD_UID),
        ),
        (
            f"0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-{CONTAINER}.scope/container",
            CgroupPlace(CONTAINER, POD_UID),
        ),
        # A cluster inside a container: the innermost counts.
        (
            f"0::/docker/{'f' * 64}/kubelet/kubepods/pod{POD_UID}/{CONTAINER}",
            CgroupPlace(CONTAINER, POD_UID),
        ),
        (
            f"0::/system.slice/containerd.service/kubepods-pod{UNDERSCORED}.slice:cri-containerd:{CONTAINER}",
            CgroupPlace(CONTAINER, POD_UID, "containerd"),
        ),
        ("0::/docker/not-an-id", CgroupPlace()),
    ],
)
def test_cgroup_paths(text, place):
    assert place_of(text) == place
