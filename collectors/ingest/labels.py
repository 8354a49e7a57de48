"""Whose profile it is: from ``app.cpu{version=v1}`` or a list of labels to the contract's identity."""

from __future__ import annotations

import re
from collections.abc import Mapping

from collectors.ingest.errors import RefusedError
from streams.schema.messages import IDENTITY

MAX_LABELS = 64
MAX_NAME, MAX_VALUE = 1024, 2048
SERVICE = "service_name"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./\-]*\Z")
_CLEAN = dict.fromkeys(range(32), " ") | {127: " "}

ALIASES: Mapping[str, tuple[str, ...]] = {
    "cluster": ("cluster", "k8s_cluster_name", "k8s.cluster.name"),
    "node": ("node", "k8s_node_name", "k8s.node.name", "node_name", "hostname", "host_name", "host.name", "host"),
    "namespace": ("namespace", "k8s_namespace_name", "k8s.namespace.name", "service_namespace", "service.namespace"),
    "pod": ("pod", "k8s_pod_name", "k8s.pod.name", "pod_name"),
    "container": ("container", "k8s_container_name", "k8s.container.name", "container_name"),
    "service": (SERVICE, "service.name", "service"),
    "version": ("version", "service_version", "service.version", "app_version", "app.kubernetes.io/version"),
}
"""Column: the labels that it is taken from, the first that is there."""


def parse_name(text: str) -> tuple[str, dict[str, str]]:
    """Return (application name, labels) of ``name{key=value,...}``; values may stand in double quotes.

    Raises:
        RefusedError: 400, there is no name, or what follows it are no labels.
    """
    name, brace, rest = text.strip().partition("{")
    name = name.strip().translate(_CLEAN)
    if not name:
        raise RefusedError(400, "no_name", "name: an application name is required: /ingest?name=myapp{version=v1}")
    labels: dict[str, str] = {}
    if brace:
        if not rest.endswith("}"):
            raise RefusedError(400, "bad_name", "name: the labels must end with '}'")
        for pair in filter(None, (part.strip() for part in rest[:-1].split(","))):
            key, equals, value = pair.partition("=")
            if not equals:
                raise RefusedError(400, "bad_name", f"name: {pair[:64]!r} is not key=value")
            labels[key.strip()] = value.strip().strip('"')
    return name, check(labels)


def check(labels: dict[str, str]) -> dict[str, str]:
    """Return labels whose number, names and lengths are within bounds.

    Raises:
        RefusedError: 400, they are not.
    """
    if len(labels) > MAX_LABELS:
        raise RefusedError(400, "bad_labels", f"more than {MAX_LABELS} labels")
    for name, value in labels.items():
        if len(name) > MAX_NAME or not _NAME.match(name):
            raise RefusedError(400, "bad_labels", f"invalid label name {name[:64]!r}")
        if len(value) > MAX_VALUE:
            raise RefusedError(400, "bad_labels", f"label {name[:64]!r} is longer than {MAX_VALUE} characters")
    return labels


def identity(labels: Mapping[str, str], cluster: str, node: str) -> dict[str, str]:
    """Return the contract's identity; what no label says is "", except for ``cluster`` and ``node`` as given.

    Raises:
        RefusedError: 400, no label names the service.
    """
    defaults = {"cluster": cluster, "node": node}
    found = {
        column: next((labels[name] for name in ALIASES[column] if labels.get(name)), defaults.get(column, ""))
        for column in IDENTITY
    }
    if not found["service"]:
        raise RefusedError(400, "no_name", f"label {SERVICE!r} is required")
    return {column: value.translate(_CLEAN) for column, value in found.items()}
