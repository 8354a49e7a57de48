"""Scrape targets from the annotations of pods: those of Pyroscope and Alloy, for the profiles that Go has.

``profiles.grafana.com/TYPE.scrape: "true"`` with TYPE one of ``cpu``, ``memory``, ``goroutine``, ``mutex``, ``block``;
``TYPE.port`` or ``TYPE.port_name`` says where (the only declared port otherwise), ``TYPE.path`` and ``TYPE.scheme``
how.
Other types (``godeltaprof_*``, ``fgprof``) are said and left out.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from collectors.kubernetes.pods import Container, PodFacts, Pods
from collectors.scrapers.settings import DEFAULT_PROFILES, DiscoverySettings, ScrapeTarget
from runtime.log import Once
from streams.schema.errors import SettingsError

_LOG = logging.getLogger(__name__)
TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cpu": ("profile",),
        # What is in use and what has been allocated, each from one of two endpoints that carry both.
        "memory": ("heap", "allocs"),
        "goroutine": ("goroutine",),
        "mutex": ("mutex",),
        "block": ("block",),
    }
)


class PodTargets:
    """A source of targets; a ``Source`` of the scraper.

    Args:
        pods: the node's pods.
        settings: what all targets have in common.
    """

    name = "kubernetes"

    def __init__(self, pods: Pods, settings: DiscoverySettings) -> None:
        self._pods, self._settings = pods, settings
        self._once = Once(_LOG)
        self._generation = -1
        self._found: Sequence[ScrapeTarget] = ()

    def targets(self) -> Sequence[ScrapeTarget]:
        """Return the targets of all pods that run."""
        generation = self._pods.generation
        if generation != self._generation:
            found, refused = annotated(self._pods.all(), self._settings)
            for pod, why in refused:
                self._once.warning(f"{pod} {why}", "a pod's annotations cannot be followed", pod=pod, why=why)
            self._generation, self._found = generation, found
        return self._found


def annotated(
    pods: Iterable[PodFacts], settings: DiscoverySettings
) -> tuple[list[ScrapeTarget], list[tuple[str, str]]]:
    """Return (targets, [(namespace/pod, what of it cannot be followed)])."""
    targets: list[ScrapeTarget] = []
    refused: list[tuple[str, str]] = []
    for pod in pods:
        if not pod.running or not pod.ip:
            continue
        places: dict[tuple[str, str], dict[str, str]] = {}
        for name, value in pod.annotations.items():
            kind, _, what = name.rpartition(".")
            if what != "scrape" or value != "true":
                continue
            try:
                place, paths = _place(pod, kind)
            except SettingsError as error:
                refused.append((f"{pod.namespace}/{pod.name}", f"{name}: {error}"))
            else:
                places.setdefault(place, {}).update(paths)
        for (address, container), paths in places.items():
            try:
                targets.append(_target(pod, address, container, paths, settings))
            except SettingsError as error:
                refused.append((f"{pod.namespace}/{pod.name}", str(error)))
    return targets, refused


def _place(pod: PodFacts, kind: str) -> tuple[tuple[str, str], dict[str, str]]:
    """Return ((address, container), {profile: whole path or ""}) of one annotated type."""
    if kind not in TYPES:
        raise SettingsError(f"there is no type {kind[:40]!r} here, only {', '.join(TYPES)}")
    scheme = pod.annotations.get(f"{kind}.scheme") or "http"
    if scheme not in ("http", "https"):
        raise SettingsError("the scheme is neither http nor https")
    port, container = _port(pod, pod.annotations.get(f"{kind}.port", ""), pod.annotations.get(f"{kind}.port_name", ""))
    try:
        ip = ipaddress.ip_address(pod.ip)
    except ValueError:
        raise SettingsError("the pod's address is none") from None
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    path = pod.annotations.get(f"{kind}.path", "")
    return (f"{scheme}://{host}:{port}", container), dict.fromkeys(TYPES[kind], path)


def _port(pod: PodFacts, number: str, name: str) -> tuple[int, str]:
    """Return (port, the container that declares it or ""); a number counts for more than a name."""
    declared = [(port, each, container) for container in pod.containers for port, each in container.ports]
    if name:
        declared = [one for one in declared if one[0] == name]
        if not declared and not number:
            raise SettingsError(f"no container has a port named {name[:40]!r}")
    if number:
        if not (number.isascii() and number.isdecimal() and 0 < int(number[:6]) < 65536):
            raise SettingsError("the port is not 1 to 65535")
        named = [one for one in declared if one[1] == int(number)] or (declared if name else [])
        return int(number), named[0][2].name if named else _only(pod.containers)
    if len(declared) != 1:
        raise SettingsError(f"say which port, {len(declared)} are declared")
    return declared[0][1], declared[0][2].name


def _only(containers: Sequence[Container]) -> str:
    main = [container.name for container in containers if container.main]
    return main[0] if len(main) == 1 else ""


def _target(
    pod: PodFacts, address: str, container: str, paths: Mapping[str, str], settings: DiscoverySettings
) -> ScrapeTarget:
    versions = {each.name: each.version for each in pod.containers}
    return ScrapeTarget(
        address,
        service=pod.service or container or pod.name,
        version=pod.version or versions.get(container, ""),
        namespace=pod.namespace,
        pod=pod.name,
        container=container,
        profiles={profile: DEFAULT_PROFILES[profile] for profile in paths},
        paths={profile: path for profile, path in paths.items() if path},
        seconds=settings.seconds,
        timeout_s=settings.timeout_s,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        insecure=settings.insecure,
    )
