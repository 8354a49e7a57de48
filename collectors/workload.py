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

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.cgroup_ids import CgroupIds, mounted
from collectors.cgroup_path import CgroupPlace
from collectors.process_identity import VARIABLES, Identity, Pod, PodSource, Reader, Workload, base_name, clean
from collectors.symbols.lru import Lru
from streams.schema.messages import WORKLOAD

__all__ = ["VARIABLES", "Pod", "PodSource", "Workload", "Workloads"]
_CHECK_S = 1.0
_NEW_S = 60.0


@dataclass(slots=True)
class _Known:
    identity: Identity
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
        self._reader = Reader({} if pods is None else pods, proc)
        self._new_s = 0.0 if pods is None else _NEW_S
        self._cgroups = cgroups or CgroupIds(mounted(proc / "self/mountinfo"), clock)
        self._clock = clock
        self._known: Lru[int, _Known] = Lru(bound)
        self._by_cgroup: Lru[int, Workload] = Lru(bound)
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
        numbers = np.asarray(pids, np.uint64)
        # What belongs to no process (a packet's socket) is told apart by its cgroup.
        keys = np.where(numbers == 0, np.asarray(cgroup_ids, np.uint64) | np.uint64(1 << 63), numbers)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        with self._lock:
            found = [self._lookup(int(numbers[at]), int(cgroup_ids[at]), _text(comms[at])) for at in first]
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
            who = self._reader.identity(pid)
            read = self._reader.read(pid, variables) if who is not None else None
            if who is not None and read is not None:
                self._keep(pid, who, *read, cgroup_id)
                return
            name = clean(base_name(path) or comm)
            known = self._gone(name, ppid, variables)
            self._known.put(pid, known)
            self._of_gone(known, cgroup_id, name)

    def _gone(self, name: str, ppid: int, variables: Mapping[str, str] | None) -> _Known:
        """Return who a process is that was gone at once, as far as its cgroup does not say more."""
        parent, now = self._declared(ppid), self._clock()
        if variables is not None:
            itself, _ = self._reader.named(CgroupPlace(), variables, name)
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
            return self._of_gone(known, cgroup_id, clean(comm))
        who = self._reader.identity(pid)
        if who is not None and known is not None and known.identity == who:
            known.checked_s = now
            if now >= known.unnamed_until:
                return known.workload
        read = self._reader.read(pid) if who is not None else None
        if who is None or read is None:
            name = clean(comm)
            if known is None:
                known = _Known(_GONE, Workload(service=name or "unknown"), now, guess="name")
            return self._of_gone(known, cgroup_id, name)
        return self._keep(pid, who, *read, cgroup_id)

    def _keep(self, pid: int, who: Identity, workload: Workload, named: bool, cgroup_id: int) -> Workload:
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
                known.workload, settled = self._reader.named(place, known.variables, known.name)
                known.guess = "" if settled else "itself"
            return known.workload
        if place is None and sibling is None:
            return known.workload
        if place is not None and not place.container_id:
            if place.unit and known.guess == "name":
                known.workload = Workload(service=clean(place.unit))
        elif sibling is not None:
            # What a parent in the same container says is nearer.
            if known.workload.container != sibling.container:
                known.workload = sibling
        elif place is not None:
            pod = self._reader.pod(place) or Pod("", "")
            container = clean(pod.container or place.container_id[:12])
            if known.workload.container != container:
                service = clean(pod.service or pod.container) or name or known.workload.service
                known.workload = Workload(clean(pod.namespace), clean(pod.pod), container, service, clean(pod.version))
        known.guess = ""
        return known.workload

    def _declared(self, ppid: int) -> Workload | None:
        return self._lookup(ppid, 0, "").heritage if ppid else None


_GONE: Identity = (0, 0, 0)


def _text(comm: bytes | str) -> str:
    return comm if isinstance(comm, str) else comm.split(b"\0", 1)[0].decode("utf-8", "replace")
