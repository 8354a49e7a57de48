"""Names for tools that run on a node for a while: with its pods, where the settings name an API server."""

from __future__ import annotations

import atexit
import logging

from prometheus_client import CollectorRegistry

from collectors.settings import AgentSettings
from collectors.workload import Workloads
from runtime.settings import load

_LOG = logging.getLogger(__name__)
_PODS_S = 3.0


def workloads() -> Workloads:
    """Return the resolver of this node's identities, as the agent of the same settings would have it.

    Waits for the first list of pods, for three seconds at most; without it containers have their ids only, which is
    said once. The watch ends with the process.

    Raises:
        SettingsError: the settings cannot be used.
    """
    settings = load(AgentSettings)
    if not settings.agent.kubernetes.address():
        return Workloads()
    from collectors.kubernetes.watch import PodWatch

    watch = PodWatch(settings.agent.kubernetes, settings.node, CollectorRegistry())
    watch.start()
    atexit.register(watch.close)
    if not watch.wait(_PODS_S):
        _LOG.warning("pods have no names yet: %s", watch.trouble)
    return Workloads(watch.pods)
