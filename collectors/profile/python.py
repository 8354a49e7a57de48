"""Functions of Python programs in the ``cpu`` profile, by py-spy, without changing or pausing the programs.

Measures: in each interval the stacks of the busiest Python processes (four, each with a fiftieth of a core or more) by
function, file and line; their CPU time of ``profile_cpu`` is spread over them (``collectors.interpreted``). Every
CPython that py-spy knows; nothing has to be set in the program, unlike the trampoline that Python 3.12 has for perf.

Does not measure: a process's first interval; processes that live for less than two; what is inside C code and system
calls called from Python, which counts for the calling function; processes of so many threads that one sample a second
is too dear. A thread that waits for a CPU counts like one that runs.
Needs profile_cpu, CAP_SYS_PTRACE, and py-spy (the extra ``python``).

Costs: 10 to 20 ms of CPU for each process and interval, and for each sample 0.2 ms, in a process of many threads 0.1 ms
for each of them. The rate is 19 Hz at most (5 when a process is new), and so low that samples take half a percent of
a core (at 1 Hz up to one); the budget counts py-spy, halves the rate, and gives it up. Off unless named: four such
processes alone are the whole budget of two cores.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from collectors import privileges
from collectors.base import Batch
from collectors.bpf.kernel import RunStats
from collectors.interpreted import Interpreted, Seen
from collectors.profile import pyspy
from collectors.symbols.lru import Lru
from collectors.symbols.process import Identity, identity
from runtime.log import Once
from streams.schema.errors import CorruptRecordError, KernelError, UsageError

if TYPE_CHECKING:
    from collectors.catalogue import Shared
    from collectors.settings import AgentOptions

MAX_PROCESSES = 4
MAX_HZ = 1000.0
_LEAST_SHARE = 0.02
"""Of a core: who uses less is left to the interpreter's frames."""
_AGAIN_S = 600.0
_WRITES_S = 0.5
_START_NS = 20_000_000
_TOO_RARE = 0.5
_DEAR_S = 0.001
"""What a sample of a process costs as long as that is not known."""
_KEPT = (privileges.KEPT["CAP_SYS_PTRACE"], privileges.KEPT["CAP_DAC_READ_SEARCH"])
_MAX_MAPS = 1 << 20
_NAME = re.compile(r"python[\d.]*[a-z]*\Z")
_LOG = logging.getLogger(__name__)
_once = Once(_LOG)


@dataclass(slots=True)
class _Process:
    identity: Identity
    is_python: bool
    rate: float
    again_s: float = 0.0
    """Not before (monotonic): py-spy has failed on it."""


class PythonStacks:
    """Keeps py-spy running on the busiest Python processes; a source of ``Interpreted``, rows come by ``profile_cpu``.

    Args:
        interpreted: where the CPU profile asks.
        frequency_hz: samples a second of each process, at most.
        interval_s: how long an interval is.
        binary: py-spy, or None to look for it.
        proc: the root of procfs.
        most_cost: CPU that the samples of one process may take, as a share of a core.
    """

    name = "python"
    schema = "profile"

    def __init__(
        self,
        interpreted: Interpreted,
        frequency_hz: float,
        interval_s: float = 10.0,
        binary: str | None = None,
        proc: Path = Path("/proc"),
        most_cost: float = 0.005,
    ) -> None:
        if not 1 <= frequency_hz <= MAX_HZ:
            raise UsageError(f"a sampling rate of {frequency_hz} Hz is not between 1 and {MAX_HZ:g}")
        self._interpreted, self._interval_s, self._proc = interpreted, interval_s, proc
        self._hz, self._effort = frequency_hz, 1.0
        self._binary, self._most_cost = binary, most_cost
        self._known: Lru[int, _Process] = Lru(1024)
        self._lock = threading.Condition()
        self._wanted: list[int] = []
        self._until = 0.0
        self._turn = 0
        self._ready: dict[int, Seen] = {}
        self._stopping = False
        self._failed = ""
        self._spent_ns = 0
        self._thread = threading.Thread(target=self._run, name="python-stacks", daemon=True)

    @classmethod
    def make(cls, shared: Shared) -> Self:
        """Make it as the agent runs it."""
        return cls(shared.interpreted, shared.options.python_hz, shared.options.interval_s)

    def relieve(self, options: AgentOptions, effort: float) -> None:
        """Do only this share of the full effort: fewer samples, and below a fourth fewer processes, too."""
        self._hz, self._effort = options.python_hz, effort

    def start(self) -> None:
        """Look for py-spy and the right to read other processes.

        Raises:
            KernelError: one of them is missing; the message says what to do.
        """
        self._binary = self._binary or pyspy.find()
        if self._binary is None or not os.access(self._binary, os.X_OK):
            raise KernelError("py-spy is not there: pip install 'perfstream[python]'")
        if not privileges.holds("CAP_SYS_PTRACE"):
            raise KernelError("CAP_SYS_PTRACE is needed to read the memory of Python processes")
        with suppress(OSError), (self._proc / "sys/kernel/yama/ptrace_scope").open() as file:
            if file.read().strip() == "3":
                raise KernelError("kernel.yama.ptrace_scope is 3: no process may read another's memory")
        self._thread.start()
        self._interpreted.source = self

    def collect(self, start_ns: int, end_ns: int) -> Batch | None:  # noqa: ARG002 - the protocol's arguments
        """Return None: what was seen stands in the rows of ``profile_cpu``.

        Raises:
            RuntimeError: the thread has ended.
        """
        if self._failed:
            raise RuntimeError(self._failed)
        return None

    def exchange(self, pids: NDArray[np.uint64], used_ns: NDArray[np.int64], until_ns: int) -> Mapping[int, Seen]:
        """Return what was seen in the interval that ends now, and go on with the busiest of these processes."""
        least = _LEAST_SHARE * self._interval_s * 1e9
        order = np.argsort(-used_ns, kind="stable")
        order = order[used_ns[order] >= least]
        with self._lock:
            ready, self._ready = self._ready, {}
            self._wanted = pids[order].astype(np.int64).tolist()
            self._until = time.monotonic() + (until_ns - time.time_ns()) / 1e9
            self._turn += 1
            self._lock.notify()
        return ready

    def stats(self) -> RunStats:
        """Return what py-spy has cost since ``start``: CPU outside of the agent's own process, as programs' is."""
        return RunStats(told_ns=self._spent_ns)

    def close(self) -> None:
        """End every run. May be called twice."""
        if self._interpreted.source is self:
            self._interpreted.source = None
        with self._lock:
            self._stopping = True
            self._lock.notify()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        turn = 0
        try:
            # Rights belong to threads: py-spy, which this one starts, gets no others than these.
            privileges.drop(_KEPT)
            while True:
                self._wait(turn)
                with self._lock:
                    turn, wanted, until = self._turn, self._wanted, self._until
                if self._stopping:
                    return
                self._interval(turn, wanted, until)
        except Exception as error:  # noqa: BLE001 - the agent tells it, and starts another one
            _LOG.exception("py-spy cannot be run")
            self._failed = f"py-spy cannot be run: {error}"

    def _interval(self, turn: int, wanted: list[int], until: float) -> None:
        began = time.monotonic()
        if until - began < self._interval_s / 2:
            return  # the agent is late, or the clock was set
        runs = list[tuple[_Process, pyspy.Run]]()
        try:
            for process, pid in self._choose(wanted):
                runs.append((process, self._begin(process, pid)))
            # It looks whether it is asked to end after each sample only, and writes then.
            slowest_s = max((1 / run.rate for _process, run in runs), default=0.0)
            self._wait(turn, until - slowest_s - max(_WRITES_S, min(1.0, self._interval_s / 10)))
            length_ns = (time.monotonic() - began) * 1e9
            for _process, run in runs:
                run.finish()
            left = [run for _process, run in runs]
            while (left := [run for run in left if not run.reap()]) and time.monotonic() < until:
                if not self._wait(turn, time.monotonic() + 0.01):
                    break
            ended = [(process, run) for process, run in runs if run.reap()]
            ready = {run.pid: seen for process, run in ended if (seen := self._seen(process, run)) is not None}
            for process, run in ended:
                self._adjust(process, run.cpu_ns, length_ns)
            with self._lock:
                if turn == self._turn:
                    self._ready = ready
        finally:
            for _process, run in runs:
                run.kill()
                run.reap(wait=True)
                run.close()
                self._spent_ns += run.cpu_ns

    def _wait(self, turn: int, until: float | None = None) -> bool:
        """Wait until then (monotonic); False at once when the interval is over before, or everything."""
        left = None if until is None else max(0.0, until - time.monotonic())
        with self._lock:
            return not self._lock.wait_for(lambda: self._stopping or self._turn != turn, left)

    def _choose(self, wanted: list[int]) -> list[tuple[_Process, int]]:
        """Return the first of these processes that are Python's and that py-spy can read."""
        chosen = list[tuple[_Process, int]]()
        for pid in wanted:
            who = identity(self._proc, pid)
            if who is None:
                continue
            process = self._known.get(pid)
            if process is None or process.identity != who:
                process = _Process(who, _is_python(self._proc / str(pid)), self._most_cost / _DEAR_S)
                self._known.put(pid, process)
            if process.is_python and time.monotonic() >= process.again_s:
                chosen.append((process, pid))
            if len(chosen) >= min(MAX_PROCESSES, MAX_PROCESSES * 4 * self._effort):
                break
        return chosen

    def _begin(self, process: _Process, pid: int) -> pyspy.Run:
        assert self._binary is not None
        process.rate = min(process.rate, self._hz)
        rate = max(1, round(process.rate * self._effort))
        return pyspy.Run(self._binary, pid, rate, math.ceil(self._interval_s) + 1)

    def _adjust(self, process: _Process, cpu_ns: int, length_ns: float) -> None:
        """Take more or fewer samples of a process, by what a run has cost; for a while none if that would not do."""
        allowed, cpu_ns = self._most_cost * self._effort * length_ns, max(1, cpu_ns - _START_NS)
        if cpu_ns > allowed:
            process.rate *= allowed / cpu_ns
        elif cpu_ns < allowed / 2:
            process.rate *= 2
        if process.rate * self._effort < _TOO_RARE and cpu_ns > allowed:
            process.again_s = time.monotonic() + _AGAIN_S
            _LOG.info("py-spy leaves a process alone that costs too much to read")

    def _seen(self, process: _Process, run: pyspy.Run) -> Seen | None:
        try:
            seen = run.seen()
        except CorruptRecordError as error:
            if identity(self._proc, run.pid) == process.identity:
                process.again_s = time.monotonic() + _AGAIN_S
                _once.warning(str(error), "py-spy cannot read a process", pid=run.pid, why=str(error))
            return None
        return seen if seen.texts else None


def _is_python(directory: Path) -> bool:
    """Return whether a process runs CPython, by its executable or as a library of its own."""
    try:
        if _NAME.match(os.readlink(directory / "exe").removesuffix(" (deleted)").rpartition("/")[2]):  # noqa: PTH115
            return True
        with (directory / "maps").open("rb") as file:
            return b"/libpython" in file.read(_MAX_MAPS)
    except OSError:
        return False
