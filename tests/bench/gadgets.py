"""What each gadget costs on a busy node: kernel and user space together, in percent of one core.

The load is that of ``agent.py``: switches, wake-ups and system calls, but no execs, connections, files or disk; a
gadget of those shows only what it costs to be there. All ``trace`` gadgets run at once, the others one after another,
for they would slow the load down. Rows are taken every 10 s (``top``: every second). Each load begins when the programs
are attached and ends before they are detached: those wait for RCU, whose thread such a load was seen to keep waiting
for a minute on Linux 6.18.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from collectors.catalogue import ALL, Shared
from collectors.gadget.cost import INTERVAL_S, measure
from collectors.settings import AgentOptions
from collectors.symbols import Symbolizer
from collectors.workload import Workloads
from tests.bench.agent import busy

_SETTLE_S, _MORE_S = 3.0, 20.0


def figures() -> Iterator[tuple[str, float, str]]:
    """Yield ``gadget_overhead_NAME`` for every gadget that runs for a while; one that cannot run here is left out."""
    traces = [each for each in ALL if each.verb == "trace"]
    # ``python`` does nothing without ``profile_cpu`` and busy Python programs.
    others = [each for each in ALL if each.verb not in ("trace", "snapshot") and each.name != "python"]
    groups = [traces, *([each] for each in others)]
    shared = Shared(Workloads(), Symbolizer(), AgentOptions())
    never = threading.Event()
    with tempfile.TemporaryDirectory(prefix="perfstream-bench-") as name:
        for group in groups:
            load = busy(Path(name), INTERVAL_S + _SETTLE_S + _MORE_S)
            for row in measure(group, shared, INTERVAL_S, never, load=load, settle_s=_SETTLE_S).to_pylist():
                if not row["why"]:
                    yield f"gadget_overhead_{row['gadget']}", row["cpu_percent"], "% of one core"
