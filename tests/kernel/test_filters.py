"""What a live gadget does not want never reaches user space: it is dropped where it happens."""

import contextlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from collectors.profile.runqlat import RunQueueLatency
from collectors.profile.syscalls import SyscallLatency
from collectors.trace.exec import Exec
from collectors.trace.open import Open
from collectors.wanted import Wanted
from tests.kernel.known import Known, Taken

OTHER = 54_321  # nobody else's
HOURS = 10**13


@pytest.fixture(scope="module")
def foreign(gadgets, known):
    """The programs where every user may run them."""
    with tempfile.TemporaryDirectory() as home:
        for each in (gadgets, known):
            shutil.copy(each, home)
        Path(home).chmod(0o755)
        yield Path(home)


def as_other(program, *arguments):
    prefix = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups")
    return Known(program, *arguments, prefix=prefix)


@contextlib.contextmanager
def live(*collectors):
    with contextlib.ExitStack() as stack:
        for each in collectors:
            stack.callback(each.close)
            each.start(live=True)
        yield collectors


def taken(collector):
    """Return all records of a collector, and that there was nothing else in its ring."""
    records = collector.poll(0)
    assert collector.lost() == 0
    assert int(collector._ring._producer[0]) == len(records) * collector._ring._stride
    return records


def test_opens(foreign):
    mine, theirs = 1009, 503
    with (
        as_other(foreign / "perfgadgets", "flood", mine) as one,
        Known(foreign / "perfgadgets", "flood", theirs) as two,
    ):
        every = (
            Open(wanted=Wanted(pid=two.pid)),
            Open(wanted=Wanted(uid=OTHER, failed=True)),
            Open(wanted=Wanted(comm="perfgadgets", min_latency_ns=HOURS)),
            Open(wanted=Wanted(comm="perfgadgets")),
        )
        with live(*every):
            one.run()
            two.run()
            by_pid, failed, slow, by_comm = map(taken, every)
    assert Counter(by_pid["pid"].tolist()) == {two.pid: theirs}
    assert Counter(zip(failed["pid"].tolist(), failed["result"].tolist(), strict=True)) == {(one.pid, -2): mine // 2}
    assert len(slow) == 0
    assert Counter(by_comm["pid"].tolist()) == {one.pid: mine, two.pid: theirs}


def test_execs(foreign):
    runs, failing, flood = 97, 13, 53
    with (
        as_other(foreign / "perfknown", "exec", runs, failing) as one,
        Known(foreign / "perfknown", "flood", flood) as two,
    ):
        every = (
            Exec(wanted=Wanted(pid=two.pid)),
            Exec(wanted=Wanted(uid=OTHER, failed=True)),
            Exec(wanted=Wanted(comm="exe", uid=OTHER)),
            Exec(wanted=Wanted(uid=OTHER, min_latency_ns=HOURS)),
        )
        with live(*every):
            one.run()
            two.run()
            by_pid, failed, by_comm, slow = map(taken, every)
    assert Counter(by_pid["pid"].tolist()) == {two.pid: flood}
    assert Counter(failed["ppid"].tolist()) == {one.pid: failing}
    assert Counter(by_comm["ppid"].tolist()) == {one.pid: runs - failing}
    assert len(slow) == 0


def test_profiles(foreign):
    calls = 1009
    with (
        as_other(foreign / "perfknown", "calls", 7, 1_000_000, calls) as one,
        Known(foreign / "perfknown", "calls", 5, 1_000_000, calls) as two,
    ):
        wanted = Wanted(pid=two.pid), Wanted(uid=OTHER), Wanted(comm="perfknown"), Wanted(comm="perfkno")
        every = [SyscallLatency(wanted=each) for each in wanted] + [RunQueueLatency(wanted=each) for each in wanted]
        with contextlib.ExitStack() as stack:
            for each in every:
                stack.callback(each.close)
                each.start()
            one.run()
            two.run()
            found = [Taken().take(each) for each in every]
    getppids = [sum(row["count"] for row in each.of(operation="getppid")) for each in found[:4]]
    assert getppids == [calls, calls, 2 * calls, 0]
    waits = [each.events for each in found[4:]]
    # Each of its sleeps ends with a wait for the CPU; so does its start, and whatever else took the CPU from it.
    assert waits[0] >= 5
    assert waits[1] >= 7
    assert waits[2] >= waits[0] + 7
    assert waits[3] == 0
    assert {row["service"] for each in found[:3] for row in each.rows} == {"perfknown"}
