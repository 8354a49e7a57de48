"""What a cgroup path says: the container, the pod's uid, the systemd unit.

Knows the path forms of Docker, containerd, CRI-O, Podman and the kubelet, with the cgroupfs and the systemd driver,
on cgroup v1 and v2. A nested container (a cluster inside a container) is named by its innermost part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTAINER = re.compile(
    r"(?:^|[/:]|(?:docker|cri-containerd|containerd|nerdctl|crio|libpod|libpod-payload)-)"
    r"([0-9a-f]{64})(?:\.scope)?(?=$|/)"
)
_POD = re.compile(
    r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=$|[/.:])"
)
_UNIT = re.compile(r"/([^/]+)\.service(?=$|/)")
_NOT_A_WORKLOAD = re.compile(r"^user@\d+$")
_RUNTIME = re.compile(r"^(?:docker|containerd|crio|podman|kubelet|k3s(?:-agent)?|rke2-(?:server|agent))$")


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """Container id (64 hexadecimal digits), pod uid (as Kubernetes writes it), systemd unit; "" where not told."""

    container_id: str = ""
    pod_uid: str = ""
    unit: str = ""


def place_of(text: str) -> CgroupPlace:
    """Return what the text of ``/proc/PID/cgroup`` (cgroups(7)) says over all its hierarchies."""
    container = pod = unit = ""
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        if not container and (containers := _CONTAINER.findall(path)):
            container = containers[-1]
        if not pod and (pods := _POD.findall(path)):
            pod = pods[-1].replace("_", "-")
        if not unit:
            units = [name for name in _UNIT.findall(path) if not _NOT_A_WORKLOAD.match(name)]
            # The unit of the runtime that a container stands under says nothing of the container.
            unit = units[-1] if units and not (container and _RUNTIME.match(units[-1])) else ""
    return CgroupPlace(container, pod, unit)
