"""Reading who one process is: its cgroup, its variables, its executable; nothing is remembered but build ids.

A process's environment is read for the variables in ``VARIABLES`` only; nothing else of it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from collectors.cgroup_path import CgroupPlace, place_of
from collectors.symbols import elf, files
from collectors.symbols.lru import Lru

VARIABLES = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "PYROSCOPE_APPLICATION_NAME")
_WANTED = {name.encode(): name for name in VARIABLES}
_MAX_ENVIRON = 256 * 1024
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


Identity = tuple[int, int, int]
"""Start time of a process, device and inode of its executable: new at fork and at exec."""


class Reader:
    """Reads processes.

    Args:
        pods: where pods are looked up.
        proc: the root of procfs.
    """

    def __init__(self, pods: PodSource | Mapping[str, Pod], proc: Path) -> None:
        self._pods, self._proc = pods, proc
        self._build_ids: Lru[tuple[int, int, int], str] = Lru(1024)

    def pod(self, place: CgroupPlace) -> Pod | None:
        """Return the pod of a cgroup; None when it is in none that is known."""
        pod = self._pods.get(place.container_id) if place.container_id else None
        return pod if pod is not None or not place.pod_uid else self._pods.get(place.pod_uid)

    def identity(self, pid: int) -> Identity | None:
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

    def read(self, pid: int, variables: Mapping[str, str] | None = None) -> tuple[Workload, bool] | None:
        """Return (who a living process is, whether that will stay so); None when it is gone."""
        directory = self._proc / str(pid)
        try:
            exe = os.readlink(directory / "exe")  # noqa: PTH115 - a Path would normalise what the kernel says
        except OSError:
            return self._without_executable(directory) if self.identity(pid) is not None else None
        try:
            place = place_of((directory / "cgroup").read_text(errors="replace"))
        except OSError:
            place = place_of("")
        if variables is None:
            variables = self._variables(directory)
            if not variables and self.identity(pid) is None:
                return None  # it ended while we looked; its variables may have been there
        told, settled = self.named(place, variables, base_name(exe))
        return replace(told, version=told.version or self._build_id(directory)), settled

    def named(self, place: CgroupPlace, variables: Mapping[str, str], name: str) -> tuple[Workload, bool]:
        """Return (who a process is, whether that will stay so) by its cgroup, its variables, its executable's name."""
        attributes = _attributes(variables.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        found = self.pod(place)
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
            clean(pod.namespace), clean(pod.pod), clean(container), clean(declared or name), clean(version),
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
        return Workload(service=clean(name if user else name.partition("/")[0])), True

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


def clean(value: str) -> str:
    """Return a name in one line, of at most 256 characters."""
    return value[:_LONGEST].translate(_CLEAN).strip()


def base_name(path: str) -> str:
    """Return the file's name of an executable."""
    return path.removesuffix(" (deleted)").rsplit("/", 1)[-1]


def _attributes(text: str) -> dict[str, str]:
    """Return the key=value pairs of ``OTEL_RESOURCE_ATTRIBUTES`` (W3C baggage form, percent-encoded)."""
    pairs = (part.partition("=") for part in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals}
