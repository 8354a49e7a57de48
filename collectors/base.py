"""What the agent asks of everything that measures, and what a measuring part asks of the outside world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.bpf.kernel import RunStats

if TYPE_CHECKING:
    from collectors.settings import AgentOptions


@dataclass(frozen=True, slots=True)
class Batch:
    """What one collector counted in one interval.

    ``batch`` has exactly the columns of the collector's schema; ``events`` is how many raw events its rows stand for;
    ``lost`` how many it knows that it did not count.
    """

    batch: pa.RecordBatch
    events: int
    lost: int = 0


class Collector(Protocol):
    """One thing measured. Calls come from one thread; ``start`` may take seconds (it compiles), the rest must not."""

    @property
    def name(self) -> str:
        """What it is called in the catalogue and in the messages' headers."""

    @property
    def schema(self) -> str:
        """``profile``, ``latency`` or ``event``: the contract's schema of its rows."""

    def start(self) -> None:
        """Load and attach.

        Raises:
            KernelError: it cannot run here; the message says what is missing.
        """

    def collect(self, start_ns: int, end_ns: int) -> Batch | None:
        """Return what was counted since the last call, as rows of the interval; None when nothing was and no loss."""

    def stats(self) -> RunStats:
        """Return what the kernel side has cost since ``start``."""

    def close(self) -> None:
        """Detach and free. May be called twice, and without ``start``."""


@runtime_checkable
class Scales(Protocol):
    """A collector that can be made cheaper."""

    def relieve(self, options: AgentOptions, effort: float) -> None:
        """Do only this share (0 to 1) of the full effort."""


class WorkloadResolver(Protocol):
    """Names workloads. Implemented by ``collectors.workload``; must answer for processes that have exited, too."""

    def columns(
        self, pids: NDArray[np.uint32], cgroup_ids: NDArray[np.uint64], comms: Sequence[str]
    ) -> dict[str, pa.DictionaryArray]:
        """Return the columns ``namespace, pod, container, service, version``, each as long as the arguments.

        Args:
            pids: process ids (thread group ids) in the initial pid namespace.
            cgroup_ids: their cgroup v2 ids; 0 when not known.
            comms: their command names as the kernel saw them; the service when nothing better is known.
        """


class CommOnly:
    """The simplest resolver: the service is the command's name. For tools that run without a node's identity."""

    def columns(
        self,
        pids: NDArray[np.uint32],
        cgroup_ids: NDArray[np.uint64],  # noqa: ARG002 - the Protocol's signature
        comms: Sequence[str],
    ) -> dict[str, pa.DictionaryArray]:
        """Return empty names except the service."""
        nothing = pa.array([""] * len(pids), pa.string()).dictionary_encode()
        columns = dict.fromkeys(("namespace", "pod", "container", "version"), nothing)
        return columns | {"service": pa.array(list(comms), pa.string()).dictionary_encode()}
