"""Where container runtimes put their cgroups, one line for each layout: what a process of a container has.

Written after the runtimes' documentation: Docker (``--cgroup-driver``, ``--cgroup-parent``), containerd and nerdctl,
the kubelet (``cgroupDriver``, QoS classes), CRI-O (``conmon_cgroup``), Podman (``--cgroups``, rootless, Quadlet) and
systemd.
``ID`` stands for the container, ``UID`` for the pod, ``POD_UNDERSCORED`` for how systemd names it.
"""

from __future__ import annotations

from dataclasses import dataclass

ID = "5c2f0a91" * 8
OUTER = "e7" * 32
UID = "0f7d9b52-61c4-4c3e-9a55-2b8f1f0c7a13"
POD_UNDERSCORED = UID.replace("-", "_")
STATIC_UID = "9c1185a5c5e9fc54612808977ee8f548"


@dataclass(frozen=True)
class Layout:
    """A cgroup's path below its hierarchy's root, and what is to be found in it."""

    name: str
    path: str
    container: str = ""
    pod: str = ""
    unit: str = ""


V2 = (
    Layout("docker-systemd", f"system.slice/docker-{ID}.scope", ID),
    Layout("docker-systemd-init", f"system.slice/docker-{ID}.scope/init.scope", ID),
    Layout("docker-cgroupfs", f"docker/{ID}", ID),
    Layout("docker-parent", f"my.slice/docker-{ID}.scope", ID),
    Layout("docker-with-systemd-inside", f"docker/{ID}/system.slice/nginx.service", ID, unit="nginx"),
    Layout("docker-daemon", "system.slice/docker.service", unit="docker"),
    Layout("nerdctl-systemd", f"system.slice/nerdctl-{ID}.scope", ID),
    Layout("containerd-cgroupfs", f"default/{ID}", ID),
    Layout("containerd-daemon", "system.slice/containerd.service", unit="containerd"),
    Layout(
        "containerd-kubelet-systemd",
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_UNDERSCORED}.slice/cri-containerd-{ID}.scope",
        ID,
        UID,
    ),
    Layout(
        "containerd-kubelet-guaranteed",
        f"kubepods.slice/kubepods-pod{POD_UNDERSCORED}.slice/cri-containerd-{ID}.scope",
        ID,
        UID,
    ),
    Layout("containerd-kubelet-cgroupfs", f"kubepods/besteffort/pod{UID}/{ID}", ID, UID),
    Layout("kubelet-static-pod", f"kubepods/burstable/pod{STATIC_UID}/{ID}", ID, STATIC_UID),
    Layout("kubelet-pod-itself", f"kubepods/besteffort/pod{UID}", pod=UID),
    Layout(
        "containerd-systemd-without-delegation",
        f"system.slice/containerd.service/kubepods-burstable-pod{POD_UNDERSCORED}.slice:cri-containerd:{ID}",
        ID,
        UID,
    ),
    Layout(
        "crio-systemd",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_UNDERSCORED}.slice/crio-{ID}.scope/container",
        ID,
        UID,
    ),
    Layout("crio-cgroupfs", f"kubepods/burstable/pod{UID}/crio-{ID}", ID, UID),
    Layout(
        "crio-monitor",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_UNDERSCORED}.slice/crio-conmon-{ID}.scope",
        pod=UID,
    ),
    Layout("podman-systemd", f"machine.slice/libpod-{ID}.scope/container", ID),
    Layout("podman-pod", f"machine.slice/machine-libpod_pod_{OUTER}.slice/libpod-{ID}.scope/container", ID),
    Layout("podman-cgroupfs", f"libpod_parent/libpod-{ID}", ID),
    Layout("podman-monitor", f"machine.slice/libpod-conmon-{ID}.scope"),
    Layout(
        "podman-rootless",
        f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
        ID,
    ),
    Layout("podman-quadlet", f"system.slice/shop.service/libpod-payload-{ID}", ID, unit="shop"),
    Layout(
        "kind",
        f"docker/{OUTER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD_UNDERSCORED}.slice/"
        f"cri-containerd-{ID}.scope",
        ID,
        UID,
    ),
    Layout("systemd-unit", "system.slice/nginx.service", unit="nginx"),
    Layout("systemd-instance", "system.slice/system-getty.slice/getty@tty1.service", unit="getty@tty1"),
    Layout("systemd-user-unit", "user.slice/user-1000.slice/user@1000.service/app.slice/editor.service", unit="editor"),
    Layout("systemd-session", "user.slice/user-1000.slice/session-2.scope"),
    Layout("not-an-id", "docker/buildkit"),
)

V1 = tuple(
    layout
    for layout in V2
    if layout.name
    in {
        "docker-systemd",
        "docker-cgroupfs",
        "nerdctl-systemd",
        "containerd-cgroupfs",
        "containerd-kubelet-systemd",
        "containerd-kubelet-cgroupfs",
        "containerd-systemd-without-delegation",
        "crio-systemd",
        "crio-cgroupfs",
        "podman-cgroupfs",
        "kubelet-static-pod",
        "systemd-unit",
    }
)
"""Those that exist on cgroup v1 as well: the same path, in each of its hierarchies."""


def of_v1(layout: Layout) -> str:
    """Return ``/proc/PID/cgroup`` of a v1 node in systemd's hybrid mode: the v2 hierarchy knows nothing of it."""
    hierarchies = ("12:cpuset", "11:memory", "4:cpu,cpuacct", "1:name=systemd")
    return "".join(f"{each}:/{layout.path}\n" for each in hierarchies) + "0::/\n"


def of_v2(layout: Layout) -> str:
    """Return ``/proc/PID/cgroup`` of a v2 node."""
    return f"0::/{layout.path}\n"
