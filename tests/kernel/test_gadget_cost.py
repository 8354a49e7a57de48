"""``perfstream gadget cost``: known work costs what the kernel's account says; what cannot run says why."""

import contextlib
import json
import subprocess
import threading
import time

import pytest

from collectors.catalogue import BY_NAME, Entry, Shared, measurable
from collectors.gadget import cost
from collectors.gadget.cost import measure
from collectors.settings import AgentOptions
from collectors.symbols import Symbolizer
from collectors.top.process import TopProcess
from collectors.top.syscalls import TopSyscalls
from streams.schema.errors import KernelError, UsageError
from tests.kernel import known as programs
from tests.kernel.known import Known
from tests.kernel.test_gadget_live import COMMAND


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return programs.build(programs.PROGRAMS / "moves.c", tmp_path_factory.mktemp("moves") / "perfmoves")


class Missing:
    """A gadget of another kernel."""

    @classmethod
    def make(cls, shared):
        return cls()

    def start(self):
        raise KernelError("tracepoint tcp:tcp_nonsense does not exist in this kernel")

    def close(self):
        pass


class Broken(Entry):
    def load(self):
        return Missing


class During(threading.Event):
    """Asks to stop when its work is done, which it does once everything is attached."""

    def __init__(self, *work):
        super().__init__()
        self._work = work

    def wait(self, timeout=None):
        for each in self._work:
            each()
        self.set()
        return True


GOOD, RUNS = 100_003, 31


def test_runs_events_and_time_are_those_of_the_work(moves, known, service, workloads):
    entries = [BY_NAME["top_syscalls"], BY_NAME["exec"], Broken("broken", "", "", "trace")]
    shared = Shared(workloads, Symbolizer(), AgentOptions())
    with (
        Known(moves, "calls", GOOD, 0, service=service) as calls,
        Known(known, "exec", RUNS, 0, service=service) as execs,
    ):
        found = measure(entries, shared, 60, During(calls.run, execs.run))
    rows = {row["gadget"]: row for row in found.to_pylist()}
    assert list(rows)[-1] == "broken"
    assert "tcp:tcp_nonsense" in rows["broken"]["why"]
    assert rows["broken"]["cpu_percent"] is None

    exec_, calls = rows["exec"], rows["top_syscalls"]
    assert exec_["events"] >= RUNS
    assert exec_["runs"] >= RUNS
    assert exec_["user_ns"] > RUNS * 10_000  # it looks at each new process
    assert calls["runs"] > 2 * GOOD
    assert 50 < calls["kernel_ns"] / calls["runs"] < 5_000
    assert calls["user_ns"] > 0
    for row in (exec_, calls):
        assert row["lost"] == 0
        assert row["memory_bytes"] > 300_000
        assert row["cpu_percent"] == pytest.approx(row["kernel_percent"] + row["user_percent"])
        assert row["kernel_percent"] / row["user_percent"] == pytest.approx(row["kernel_ns"] / row["user_ns"])


class Turns(threading.Event):
    """Asks to stop when its works are done, one before each time that the gadgets' rows are taken."""

    def __init__(self, *works):
        super().__init__()
        self._works = list(works)

    def wait(self, timeout=None):
        if self._works:
            self._works.pop(0)()
            time.sleep(max(0, timeout))
        else:
            self.set()
        return self.is_set()


class Small:
    """``top syscalls`` with room for one row, so that most calls are lost."""

    make = staticmethod(lambda shared: TopSyscalls(shared.workloads, rows=1))


class Busy(TopProcess):
    """Needs some time for each of its intervals, whatever there is."""

    def collect(self, seconds):
        end = time.thread_time_ns() + BUSY_NS
        while time.thread_time_ns() < end:
            pass
        return super().collect(seconds)


class Of(Entry):
    def load(self):
        return {"small": Small, "busy": Busy}[self.name]


BUSY_NS, MORE_RUNS, MORE_CALLS = 20_000_000, 7, 101


def test_what_was_counted_in_earlier_intervals_stays(moves, known, service, workloads, monkeypatch):
    """Most of the work is in the first of three intervals: nothing of it may be forgotten at the next ones."""
    monkeypatch.setattr(cost, "INTERVAL_S", 0.1)
    monkeypatch.setattr(cost, "TOP_INTERVAL_S", 0.1)
    entries = [BY_NAME["exec"], Of("small", "", "", "top"), Of("busy", "", "", "top")]
    shared = Shared(workloads, Symbolizer(), AgentOptions())
    with contextlib.ExitStack() as stack:
        works = [
            (stack.enter_context(Known(moves, "calls", calls, 0)), stack.enter_context(Known(known, "exec", runs, 0)))
            for calls, runs in ((GOOD, RUNS), (MORE_CALLS, MORE_RUNS))
        ]
        turns = Turns(*(lambda pair=pair: [each.run() for each in pair] for pair in works), lambda: None)
        rows = {row["gadget"]: row for row in measure(entries, shared, 60, turns).to_pylist()}
    assert rows["exec"]["events"] >= RUNS + MORE_RUNS
    assert rows["exec"]["runs"] >= RUNS + MORE_RUNS
    small = rows["small"]
    assert small["lost"] >= GOOD + MORE_CALLS
    assert small["runs"] > 2 * (GOOD + MORE_CALLS)
    assert small["kernel_ns"] > 2 * (GOOD + MORE_CALLS) * 20
    assert small["events"] >= 3  # one row an interval
    assert rows["busy"]["user_ns"] >= 4 * BUSY_NS  # three intervals, and what is left at the end


def test_what_came_before_the_measurement_is_not_in_it(moves, known, workloads):
    @contextlib.contextmanager
    def before():
        with Known(moves, "calls", GOOD, 0) as calls, Known(known, "exec", RUNS, 0) as execs:
            calls.run()
            execs.run()
            yield

    entries = [BY_NAME["exec"], Of("small", "", "", "top")]
    found = measure(entries, Shared(workloads, Symbolizer(), AgentOptions()), 60, During(), load=before())
    rows = {row["gadget"]: row for row in found.to_pylist()}
    assert rows["exec"]["events"] < RUNS
    assert rows["small"]["lost"] < GOOD
    assert rows["small"]["runs"] < GOOD


def test_the_command_measures_those_that_are_named():
    arguments = ("cost", "top_process", "bind", "--timeout", "0.3", "-o", "json")
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["gadget"] for row in rows} == {"top_process", "bind"}
    assert rows[0]["cpu_percent"] >= rows[1]["cpu_percent"]
    assert "measuring 2 gadgets" in done.stderr


def test_what_runs_for_no_while_cannot_be_measured():
    assert measurable(("exec", "exec")) == (BY_NAME["exec"],)
    assert measurable(("cpu", "syscalls", "syscall")) == (BY_NAME["profile_cpu"], BY_NAME["syscall"])
    assert {entry.name for entry in measurable(())} >= {"profile_cpu", "exec"}
    with pytest.raises(UsageError, match="no gadget 'snapshot_process'"):
        measurable(("snapshot_process",))
