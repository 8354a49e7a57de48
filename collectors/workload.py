"""Who a process is: namespace, pod, container, service, version.

Read while the process lives, kept for its life by (pid, start time), so that a row drained after it exited still has
its name. In this order: the pod (cgroup path to container id to pod, through a pod source), the OpenTelemetry and
Pyroscope variables, the pod's container, the systemd unit, the executable's name, the name that came with the event.
The version falls back to the first 12 digits of the executable's GNU build id.

A process that was never seen alive is told by its cgroup's id, where the kernel has one (cgroup v2), and by its parent.
A container that the pod source does not know yet is looked up again for a minute.

A process's environment is read for the variables in ``VARIABLES`` only; nothing else of it is kept. What an exec's
event says of them (``observe_exec``) names a process that was gone at once, too. Cost: about 0.1 ms for a new process,
a dictionary look-up and one read of ``stat`` for a known one. Memory: at most ``bound`` identities.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.cgroup_ids import CgroupIds, mounted
from collectors.cgroup_path import CgroupPlace, place_of
from collectors.symbols import elf, files
from collectors.symbols.lru import Lru
from streams.schema.messages import WORKLOAD

VARIABLES = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "PYROSCOPE_APPLICATION_NAME")
_WANTED = {name.encode(): name for name in VARIABLES}
_MAX_ENVIRON = 256 * 1024
_CHECK_S = 1.0
_NEW_S = 60.0
_PF_EXITING = 0x4  # Linux include/linux/sched.h, part of what /proc/PID/stat shows
_LONGEST = 256
_CLEAN = dict.fromkeys(range(32), " ") | {127: " "}


@dataclass(frozen=True, slots=True)
class Workload:
    """The part of the identity that differs from process to process; "" where unknown."""

    namespace: str = ""
    pod: str = ""
    container: str = ""
    service: str = ""
    version: str = ""
    heritage: Workload | None = field(default=None, compare=False, repr=False)
    """What a child inherits, where a pod, a variable or a unit names the service. Not part of the identity."""
    said: bool = field(default=False, compare=False, repr=False)
    """A variable names the service, so that a child without it has another one."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What a pod source knows of one container. ``service`` and ``version`` come from labels or the image's tag."""

    namespace: str
    pod: str
    container: str = ""
    service: str = ""
    version: str = ""


class PodSource(Protocol):
    """Looks pods up; must not block. A mapping from container id or pod uid to ``Pod`` is one."""

    def get(self, key: str, /) -> Pod | None:
        """Return the pod of a container id (64 hexadecimal digits) or of a pod uid (with dashes)."""


_Identity = tuple[int, int, int]


@dataclass(slots=True)
class _Known:
    identity: _Identity
    workload: Workload
    checked_s: float
    unnamed_until: float = 0.0
    """Until when it is read again: its container was unknown."""
    guess: str = ""
    """It was gone, and taken for what its ``name``, its ``parent`` or it ``itself`` says; "" when that is settled."""
    name: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What is known of ``itself``: its executable's name and its variables."""


class Workloads:
    """The resolver of identities; a ``WorkloadResolver`` of ``collectors.base``. Thread-safe.

    Args:
        pods: where pods are looked up; default none.
        proc: the root of procfs.
        clock: seconds, monotonic.
        bound: how many processes are kept.
        cgroups: where the cgroups of processes that are gone are looked up; default the node's.
    """

    def __init__(
        self,
        pods: PodSource | Mapping[str, Pod] | None = None,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
        bound: int = 8192,
        cgroups: CgroupIds | None = None,
    ) -> None:
        self._pods: PodSource | Mapping[str, Pod] = {} if pods is None else pods
        self._new_s = 0.0 if pods is None else _NEW_S
        self._cgroups = cgroups or CgroupIds(mounted(proc / "self/mountinfo"), clock)
        self._proc = proc
        self._clock = clock
        self._known: Lru[int, _Known] = Lru(bound)
        self._by_cgroup: Lru[int, Workload] = Lru(bound)
        self._build_ids: Lru[tuple[int, int, int], str] = Lru(1024)
        self._lock = threading.Lock()

    def columns(
        self, pids: NDArray[np.uint32], cgroup_ids: NDArray[np.uint64], comms: Sequence[bytes | str]
    ) -> dict[str, pa.DictionaryArray]:
        """Return the five workload columns, each as long as ``pids``; the work is done once for each pid.

        Args:
            pids: thread group ids as the agent sees them, shape (n,).
            cgroup_ids: cgroup v2 ids of the same rows, 0 when unknown.
            comms: the kernel's short names of the same rows, "" when unknown.
        """
        unique, first, inverse = np.unique(np.asarray(pids), return_index=True, return_inverse=True)
        with self._lock:
            found = [self._lookup(int(unique[i]), int(cgroup_ids[at]), _text(comms[at])) for i, at in enumerate(first)]
        columns = {}
        for name in WORKLOAD:
            codes: dict[str, int] = {}
            code_of = np.array([codes.setdefault(getattr(one, name), len(codes)) for one in found], np.int32)
            indices = code_of[inverse] if found else np.zeros(0, np.int32)
            columns[name] = pa.DictionaryArray.from_arrays(
                pa.array(indices, pa.int32()), pa.array(list(codes), pa.string())
            )
        return columns

    def of(self, pid: int, cgroup_id: int = 0, comm: str = "") -> Workload:
        """Return the identity of one process."""
        with self._lock:
            return self._lookup(pid, cgroup_id, comm)

    def prefetch(self, pids: Iterable[int], ppids: Iterable[int] = (), cgroup_ids: Iterable[int] = ()) -> None:
        """Look at processes now, so that they are known after they exit.

        Args:
            pids: thread group ids.
            ppids: their parents, or none: one that is gone already takes what its parent hands down.
            cgroup_ids: their cgroup v2 ids, or none: a cgroup may be gone soon, too.
        """
        with self._lock:
            for pid, ppid, cgroup_id in zip_longest(pids, ppids, cgroup_ids, fillvalue=0):
                self._lookup(pid, cgroup_id, "")
                if self._known.get(pid) is None and (inherited := self._declared(ppid)) is not None:
                    known = _Known(_GONE, inherited, self._clock(), guess="parent")
                    self._known.put(pid, known)
                    self._of_gone(known, cgroup_id, "")

    def observe_exec(
        self, pid: int, comm: str, path: str = "", ppid: int = 0, cgroup_id: int = 0,
        variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Take note of an exec: the process may be too short-lived to be read later.

        Args:
            pid: the thread group id.
            comm: the kernel's short name after the exec.
            path: the executable as the kernel opened it, "" when unknown.
            ppid: the parent, 0 when unknown: where it declares a service (pod, variables, unit), a child that is gone
                counts as part of it, for all of those are inherited.
            cgroup_id: its cgroup v2 id, 0 when unknown.
            variables: those of ``VARIABLES`` that it has been given, None when that is unknown.
        """
        with self._lock:
            who = self._identity(pid)
            read = self._read(pid, variables) if who is not None else None
            if who is not None and read is not None:
                self._keep(pid, who, *read, cgroup_id)
                return
            name = _clean(_base_name(path) or comm)
            known = self._gone(name, ppid, variables)
            self._known.put(pid, known)
            self._of_gone(known, cgroup_id, name)

    def _gone(self, name: str, ppid: int, variables: Mapping[str, str] | None) -> _Known:
        """Return who a process is that was gone at once, as far as its cgroup does not say more."""
        parent, now = self._declared(ppid), self._clock()
        if variables is not None:
            itself, _ = self._named(CgroupPlace(), variables, name)
            if parent and not parent.said and (parent.pod or not itself.said):
                itself = parent  # a pod or a unit names both
            elif ppid:
                above = self._lookup(ppid, 0, "")
                namespace = above.namespace if above.pod else itself.namespace
                itself = replace(itself, namespace=namespace, pod=above.pod, container=above.container)
            return _Known(_GONE, itself, now, guess="itself", name=name, variables=variables)
        return _Known(_GONE, parent or Workload(service=name), now, guess="parent" if parent else "name")

    def stats(self) -> dict[str, int]:
        """Return counts for the agent's metrics."""
        return {"processes": len(self._known)}

    def _lookup(self, pid: int, cgroup_id: int, comm: str) -> Workload:
        known = self._known.get(pid)
        now = self._clock()
        if known is not None and now - known.checked_s < _CHECK_S:
            return self._of_gone(known, cgroup_id, _clean(comm))
        who = self._identity(pid)
        if who is not None and known is not None and known.identity == who:
            known.checked_s = now
            if now >= known.unnamed_until:
                return known.workload
        read = self._read(pid) if who is not None else None
        if who is None or read is None:
            name = _clean(comm)
            if known is None:
                known = _Known(_GONE, Workload(service=name or "unknown"), now, guess="name")
            return self._of_gone(known, cgroup_id, name)
        return self._keep(pid, who, *read, cgroup_id)

    def _keep(self, pid: int, who: _Identity, workload: Workload, named: bool, cgroup_id: int) -> Workload:
        """Note what was read of a process; ``named``: its container is known, or it is in none."""
        now, before = self._clock(), self._known.get(pid)
        again = before is not None and before.identity == who and before.unnamed_until
        until = 0.0 if named else again or now + self._new_s
        self._known.put(pid, _Known(who, workload, now, until))
        if workload.container and self._is_of_one(cgroup_id):
            self._by_cgroup.put(cgroup_id, workload)
        return workload

    def _is_of_one(self, cgroup_id: int) -> bool:
        """Return whether an id is one container's. With cgroup v1 it is the v2 root's, 1, or the runtime's own."""
        place = self._cgroups.place(cgroup_id)
        return bool(place.container_id) if place is not None else cgroup_id > 1

    def _of_gone(self, known: _Known, cgroup_id: int, name: str) -> Workload:
        """Return who a process is, or was: where that is a guess, what its cgroup says counts for more."""
        if not known.guess or not cgroup_id:
            return known.workload
        place, sibling = self._cgroups.place(cgroup_id), self._by_cgroup.get(cgroup_id)
        if known.guess == "itself":
            if place is not None and place != CgroupPlace():
                known.workload, settled = self._named(place, known.variables, known.name)
                known.guess = "" if settled else "itself"
            return known.workload
        if place is None and sibling is None:
            return known.workload
        if place is not None and not place.container_id:
            if place.unit and known.guess == "name":
                known.workload = Workload(service=_clean(place.unit))
        elif sibling is not None:
            # What a parent in the same container says is nearer.
            if known.workload.container != sibling.container:
                known.workload = sibling
        elif place is not None:
            pod = self._pod(place) or Pod("", "")
            container = _clean(pod.container or place.container_id[:12])
            if known.workload.container != container:
                service = _clean(pod.service or pod.container) or name or known.workload.service
                known.workload = Workload(
                    _clean(pod.namespace), _clean(pod.pod), container, service, _clean(pod.version)
                )
        known.guess = ""
        return known.workload

    def _pod(self, place: CgroupPlace) -> Pod | None:
        pod = self._pods.get(place.container_id) if place.container_id else None
        return pod if pod is not None or not place.pod_uid else self._pods.get(place.pod_uid)

    def _declared(self, ppid: int) -> Workload | None:
        return self._lookup(ppid, 0, "").heritage if ppid else None

    def _identity(self, pid: int) -> _Identity | None:
        """Return (start time, device and inode of the executable): new at fork and at exec. None when gone."""
        try:
            text = (self._proc / str(pid) / "stat").read_bytes()
            fields = text[text.rindex(b")") + 2 :].split()
            # On its way out a process has no memory, and so no executable and no variables, before it is a zombie.
            started, gone = int(fields[19]), fields[0] in (b"Z", b"X") or bool(int(fields[6]) & _PF_EXITING)
        except (OSError, ValueError, IndexError):
            return None
        if gone:
            return None
        try:
            exe = (self._proc / str(pid) / "exe").stat()
        except OSError:
            return started, 0, 0
        return started, exe.st_dev, exe.st_ino

    def _read(self, pid: int, variables: Mapping[str, str] | None = None) -> tuple[Workload, bool] | None:
        """Return (who a living process is, whether that will stay so); None when it is gone."""
        directory = self._proc / str(pid)
        try:
            exe = os.readlink(directory / "exe")  # noqa: PTH115 - a Path would normalise what the kernel says
        except OSError:
            return self._without_executable(directory) if self._identity(pid) is not None else None
        try:
            place = place_of((directory / "cgroup").read_text(errors="replace"))
        except OSError:
            place = place_of("")
        if variables is None:
            variables = self._variables(directory)
            if not variables and self._identity(pid) is None:
                return None  # it ended while we looked; its variables may have been there
        told, settled = self._named(place, variables, _base_name(exe))
        return replace(told, version=told.version or self._build_id(directory)), settled

    def _named(self, place: CgroupPlace, variables: Mapping[str, str], name: str) -> tuple[Workload, bool]:
        """Return (who a process is, whether that will stay so) by its cgroup, its variables, its executable's name."""
        attributes = _attributes(variables.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        found = self._pod(place)
        pod = found or Pod(namespace=attributes.get("service.namespace", ""), pod="")
        said = (
            variables.get("OTEL_SERVICE_NAME")
            or attributes.get("service.name")
            or variables.get("PYROSCOPE_APPLICATION_NAME", "").partition("{")[0]
        )
        declared = pod.service or said or pod.container or place.unit
        version = pod.version or attributes.get("service.version", "")
        container = pod.container or place.container_id[:12]
        told = Workload(
            _clean(pod.namespace), _clean(pod.pod), _clean(container), _clean(declared or name), _clean(version),
            said=bool(said and not pod.service),
        )  # fmt: skip
        return replace(told, heritage=told if declared else None), not place.container_id or bool(
            found and found.container
        )

    @staticmethod
    def _without_executable(directory: Path) -> tuple[Workload, bool] | None:
        # A kernel thread, or a process closed even to root. The number of "kworker/0:1" would make each a service.
        try:
            user = bool((directory / "cmdline").read_bytes())
            name = (directory / "comm").read_text(errors="replace").strip()
        except OSError:
            return None
        return Workload(service=_clean(name if user else name.partition("/")[0])), True

    @staticmethod
    def _variables(directory: Path) -> dict[str, str]:
        try:
            with (directory / "environ").open("rb") as file:
                block = file.read(_MAX_ENVIRON)
        except OSError:
            return {}
        found = {}
        for entry in block.split(b"\0"):
            name, _, value = entry.partition(b"=")
            if value and name in _WANTED:
                found[_WANTED[name]] = value.decode("utf-8", "replace")
        return found

    def _build_id(self, directory: Path) -> str:
        try:
            fd = files.open_regular(directory / "exe")
        except OSError:
            return ""
        with files.closing(fd):
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino, status.st_mtime_ns)
            known = self._build_ids.get(key)
            if known is None:
                try:
                    known = elf.Elf(elf.reader_of(fd)).build_id[:12]
                except (ValueError, OSError):
                    known = ""
                self._build_ids.put(key, known)
            return known


_GONE: _Identity = (0, 0, 0)


def _text(comm: bytes | str) -> str:
    return comm if isinstance(comm, str) else comm.split(b"\0", 1)[0].decode("utf-8", "replace")


def _clean(value: str) -> str:
    return value[:_LONGEST].translate(_CLEAN).strip()


def _base_name(path: str) -> str:
    return path.removesuffix(" (deleted)").rsplit("/", 1)[-1]


def _attributes(text: str) -> dict[str, str]:
    """Return the key=value pairs of ``OTEL_RESOURCE_ATTRIBUTES`` (W3C baggage form, percent-encoded)."""
    pairs = (part.partition("=") for part in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals}
