"""What is kept of a pod, and the index of a node's pods by container id and uid."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from collectors.workload import Pod

ANNOTATIONS = "profiles.grafana.com/"
KEEP_S = 300.0
"""How long a container or pod that is gone still has its name: rows of it may not have been read yet."""
MAX_PODS = 2000
_MAX_GONE = 8192
_MOST = 64
_TAG = re.compile(r":(?P<tag>[\w][\w.-]{0,127})$", re.ASCII)
_RUNTIME_ID = re.compile(r"^[a-z0-9.-]+://([0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod: its name, the version that its image's tag says, its ids, its ports by name.

    ``main`` is false for those that only prepare the pod or debug it.
    """

    name: str
    version: str = ""
    ids: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    main: bool = True


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What is kept of a pod. ``uids``: the API's, and for a static pod the one that its cgroup is named by."""

    uids: tuple[str, ...]
    namespace: str
    name: str
    ip: str = ""
    running: bool = False
    service: str = ""
    version: str = ""
    containers: tuple[Container, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those that say what is to be scraped, without their prefix."""

    def identities(self) -> Iterator[tuple[str, Pod]]:
        """Yield each container id and uid with whom it stands for."""
        tags = {container.version for container in self.containers if container.main}
        version = self.version or (tags.pop() if len(tags) == 1 else "")
        for uid in self.uids:
            yield uid, Pod(self.namespace, self.name, "", self.service, version)
        for container in self.containers:
            pod = Pod(self.namespace, self.name, container.name, self.service, self.version or container.version)
            for each in container.ids:
                yield each, pod


def read(pod: Mapping[str, Any]) -> PodFacts:
    """Return what is kept of a pod as the API gives it.

    Raises:
        ValueError: this is no pod.
    """
    try:
        meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        uids = (_text(meta, "uid"), _text(annotations, "kubernetes.io/config.hash"))
        if not uids[0]:
            raise KeyError("uid")
        return PodFacts(
            tuple(uid for uid in uids if uid),
            _text(meta, "namespace"),
            _text(meta, "name"),
            _text(status, "podIP"),
            status.get("phase") == "Running",
            _text(labels, "app.kubernetes.io/name"),
            _text(labels, "app.kubernetes.io/version"),
            tuple(_containers(spec, status)),
            {
                name.removeprefix(ANNOTATIONS): _text(annotations, name)
                for name in annotations
                if name.startswith(ANNOTATIONS)
            },
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"a pod lacks what every pod has: {error}") from error


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Container]:
    ids: dict[str, list[str]] = {}
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(kind) or ():
            before = (each.get("lastState") or {}).get("terminated") or {}
            for holder in (each, before):
                if found := _RUNTIME_ID.match(_text(holder, "containerID")):
                    ids.setdefault(_text(each, "name"), []).append(found[1])
    listed = [(kind, each) for kind in ("containers", "initContainers", "ephemeralContainers") for each in
              spec.get(kind) or ()]  # fmt: skip
    for kind, each in listed[:_MOST]:
        ports = [
            (_text(port, "name"), int(port["containerPort"]))
            for port in each.get("ports") or ()
            if port.get("protocol", "TCP") == "TCP"
        ]
        name = _text(each, "name")
        yield Container(
            name, tag(_text(each, "image")), tuple(ids.get(name, ())), tuple(ports[:_MOST]), kind == "containers"
        )


def tag(image: str) -> str:
    """Return the tag of an image's reference; "" where it has none, and for ``latest``, which names no version."""
    found = _TAG.search(image.partition("@")[0])
    return found["tag"] if found and found["tag"] != "latest" else ""


class Pods:
    """The pods of a node; a ``PodSource``. One thread changes it, any thread looks things up.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pods: dict[str, PodFacts] = {}
        self._by_key: dict[str, Pod] = {}
        self._gone: dict[str, tuple[float, Pod]] = {}
        self.generation = 0
        """Changes with every change."""

    def __len__(self) -> int:
        return len(self._pods)

    def get(self, key: str, /) -> Pod | None:
        """Return the pod of a container id or of a pod uid; also for some time after it is gone."""
        found = self._by_key.get(key)
        if found is None and (before := self._gone.get(key)) is not None:
            return before[1]
        return found

    def all(self) -> tuple[PodFacts, ...]:
        """Return the pods that are there, the oldest known first."""
        return tuple(self._pods.values())

    def replace(self, pods: Iterable[PodFacts]) -> int:
        """Take a whole list; returns how many pods it had no room for."""
        listed = list(pods)
        self._pods = {pod.uids[0]: pod for pod in listed[:MAX_PODS]}
        self._index()
        return max(0, len(listed) - MAX_PODS)

    def put(self, pod: PodFacts) -> bool:
        """Take a new or changed pod; returns whether there was room."""
        if pod.uids[0] not in self._pods and len(self._pods) >= MAX_PODS:
            return False
        if self._pods.get(pod.uids[0]) != pod:
            self._pods = self._pods | {pod.uids[0]: pod}
            self._index()
        return True

    def remove(self, pod: PodFacts) -> None:
        """Take note that a pod is gone."""
        if pod.uids[0] in self._pods:
            self._pods = {uid: each for uid, each in self._pods.items() if uid != pod.uids[0]}
            self._index()

    def _index(self) -> None:
        now, before = self._clock(), self._by_key
        self._by_key = dict(pair for pod in self._pods.values() for pair in pod.identities())
        gone = {key: entry for key, entry in self._gone.items() if entry[0] > now and key not in self._by_key}
        gone |= {key: (now + KEEP_S, pod) for key, pod in before.items() if key not in self._by_key}
        self._gone = dict(list(gone.items())[-_MAX_GONE:])
        self.generation += 1
