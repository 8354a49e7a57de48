"""cpu and offcpu: shares and sums of known work, by function; what finds no room; names of every kind of program."""

import contextlib
import subprocess
from collections import Counter

import pytest

from collectors import stack_count
from collectors.bpf import fields
from collectors.profile import cpu as profile_cpu
from collectors.profile import offcpu
from collectors.profile.cpu import ProfileCpu
from collectors.profile.offcpu import OffCpu
from streams.schema.stacks import join, split, stack_id
from tests.kernel.known import PROGRAMS, Known, Taken, started, taken, until

HZ = 997.0


def functions(row):
    return [frame.function for frame in split(row["stack"]["frames"])]


def by_function(rows, names):
    """Return the value of the rows in whose stack each function stands."""
    total = Counter()
    for row in rows:
        for name in set(functions(row)) & set(names):
            total[name] += row["value"]
    return total


def test_cpu_time_is_shared_as_it_was_burned(known, service, workloads, run_time):
    found = Taken()
    collector = ProfileCpu(workloads, frequency_hz=HZ)
    with started(collector), Known(known, "burn", 3000, service=service) as program:
        program.go()
        # Intervals that follow each other: every sample is in one of them.
        until(lambda: sum(row["value"] for row in found.take(collector).of(service=service)) > 1_000_000_000)
        said = program.answer()
        found.take(collector)
        cost = collector.stats()
    mine = found.of(service=service)
    total = sum(row["value"] for row in mine)
    assert found.lost == 0
    assert total == pytest.approx(said["cpu_ns"], rel=0.05)
    shares = by_function(mine, ("five", "three", "two"))
    assert {name: value / total for name, value in shares.items()} == pytest.approx(
        {"five": 0.5, "three": 0.3, "two": 0.2}, abs=0.03
    )
    assert by_function(mine, ["main"])["main"] > 0.97 * total  # whole stacks, down to the root
    for row in mine:
        assert (row["type"], row["unit"], row["period"]) == ("cpu", "nanoseconds", round(1e9 / HZ))
        assert row["stack"]["id"] == stack_id(join(row["stack"]["frames"]))
        assert row["value"] % row["period"] == 0
    assert {frame.file for row in mine for frame in split(row["stack"]["frames"]) if frame.function == "five"} == {
        str(known)
    }
    # Every run of the program is a sample, or the idle task.
    assert found.events <= cost.run_cnt
    assert cost.run_time_ns / cost.run_cnt < 100_000


LONG, PIPE, SHORT, OTHERS = 23, 41, 101, 499


@pytest.mark.parametrize(
    "scheduler", [fields.SCHEDULER, dict.fromkeys(fields.SCHEDULER, "rq.no_such?")], ids=["rq", "ktime"]
)
def test_off_cpu_time_is_the_time_slept_with_the_stack_it_was_slept_in(
    known, service, workloads, scheduler, monkeypatch
):
    monkeypatch.setattr(fields, "SCHEDULER", scheduler)
    found = Taken()
    with (
        started(OffCpu(workloads, most_per_s=1e9)) as collector,
        Known(known, "waits", LONG, PIPE, SHORT, service=service) as program,
        Known(known, "deep", OTHERS, 1_100_000) as one,
        Known(known, "deep", OTHERS, 1_100_000) as other,
    ):
        for each in (one, other, program):
            each.go()
        until(lambda: by_function(found.take(collector).of(service=service), ["wait_pipe"]))
        said = program.answer()
        one.answer()
        other.answer()
        found.take(collector)
    mine = found.of(service=service)
    sums = by_function(mine, ("wait_long", "wait_pipe", "wait_short"))
    # What is missing was counted as lost, and that is little.
    assert 0.95 * said["slept_ns"] <= sums["wait_long"] + found.lost * 20_000_000
    assert 0.95 * said["piped_ns"] <= sums["wait_pipe"] + found.lost * 5_000_000
    assert sums["wait_long"] <= said["slept_ns"]
    assert sums["wait_pipe"] <= said["piped_ns"]
    # Sleeps of 50 microseconds are below the threshold, unless the CPU was not free at their end.
    assert sums["wait_short"] < SHORT * 50_000
    waiting = [row for row in mine if "wait_long" in functions(row)]
    for row in waiting:
        assert (row["type"], row["period"]) == ("offcpu", 0)
        # What it waits in; nothing of our own interrupt or of the scheduler above it.
        assert functions(row)[-1] in ("do_nanosleep_[k]", "hrtimer_nanosleep_[k]")
        assert "hrtimer_nanosleep_[k]" in functions(row)
    assert found.events > 2 * OTHERS
    assert found.lost <= found.events // 100  # waits that end on several CPUs at the same time are all seen


def test_stacks_that_find_no_room_are_counted(known, service, workloads, monkeypatch):
    """Both kinds of profile, in maps of 64 stacks, with 100 depths of recursion."""
    monkeypatch.setattr(profile_cpu, "entries", lambda _: 64)
    monkeypatch.setattr(offcpu, "entries", lambda _: 64)
    waits = 499
    cpu, off = ProfileCpu(workloads, frequency_hz=HZ), OffCpu(workloads, most_per_s=1e9)
    with (
        started(cpu, off),
        Known(known, "deep", waits, 1_100_000, service=service) as sleeper,
        Known(known, "deep", 200, 0, service=f"{service}-burner") as burner,
    ):
        sleeper.go()
        burner.run()
        sleeper.answer()
        sampled, waited = taken(cpu), taken(off)
    assert sampled.lost > 50
    assert waited.lost > 50
    counted = len(waited.of(service=service))
    assert counted > 0
    assert waits <= waited.events + waited.lost
    assert (sampled.events + sampled.lost) * 1e9 / HZ > 550_000_000


@pytest.fixture(scope="session")
def programs(tmp_path_factory, known):
    """Programs of several languages, built at the same time."""
    home = tmp_path_factory.mktemp("programs")
    frames, rust = "-fno-omit-frame-pointer", ["rustc", "-O", "-C", "force-frame-pointers=yes"]
    builds = [
        ["g++", "-O1", frames, "-o", home / "wheel", PROGRAMS / "wheel.cc"],
        [*rust, "-o", home / "legacy", PROGRAMS / "grinder.rs"],
        [*rust, "-C", "symbol-mangling-version=v0", "-o", home / "modern", PROGRAMS / "grinder.rs"],
        ["gcc", "-O1", frames, "-o", home / "jit", PROGRAMS / "jit.c"],
        ["strip", "-o", home / "stripped", known],
    ]
    running = [subprocess.Popen(list(map(str, command))) for command in builds]
    assert [process.wait(120) for process in running] == [0] * len(builds)
    return home


@pytest.mark.alone  # they live for half a second: it must come to look at them meanwhile
def test_names_of_every_kind_of_program(known, programs, service, workloads, tmp_path, monkeypatch):
    monkeypatch.setattr(stack_count, "POLL_S", 0.05)
    hidden = tmp_path / "only-inside"
    hidden.mkdir()
    own_mounts = f'mount -t tmpfs none {hidden} && cp {known} {hidden}/inside && exec {hidden}/inside "$@"'
    kinds = {
        "cxx": Known(programs / "wheel", service=f"{service}-cxx"),
        "legacy": Known(programs / "legacy", service=f"{service}-legacy"),
        "modern": Known(programs / "modern", service=f"{service}-modern"),
        "jit": Known(programs / "jit", service=f"{service}-jit"),
        "stripped": Known(programs / "stripped", "burn", 400, service=f"{service}-stripped"),
        "mounts": Known(
            "burn", 400, service=f"{service}-mounts", prefix=("unshare", "-m", "sh", "-c", own_mounts, "sh")
        ),
    }
    with started(ProfileCpu(workloads, frequency_hz=HZ)) as collector, contextlib.ExitStack() as stack:
        for program in kinds.values():
            stack.enter_context(program)
        assert not (hidden / "inside").exists()
        for program in kinds.values():
            program.go()
        for program in kinds.values():
            program.answer()
        for program in kinds.values():
            program.end()  # all are gone when the interval ends
        found = taken(collector)
    leaves = {}
    for kind in kinds:
        leaf = Counter()
        for row in found.of(service=f"{service}-{kind}"):
            user = [frame for frame in split(row["stack"]["frames"]) if not frame.function.endswith("_[k]")]
            if user:  # the last moments of a process have a kernel stack only
                leaf[user[-1].function] += row["value"]
        leaves[kind] = leaf.most_common(1)[0][0]
    inside = [
        frame.file
        for row in found.of(service=f"{service}-mounts")
        for frame in split(row["stack"]["frames"])
        if frame.function == "five"
    ]
    assert leaves == {
        "cxx": "mill::Wheel<unsigned long>::turn(unsigned int)",
        "legacy": "grinder::stones::Grinder<u64>::grind",
        "modern": "<grinder::stones::Grinder<u64>>::grind",
        "jit": "Shop.sell:(int)",
        "stripped": "[stripped]",
        "mounts": "burn_for",
    }
    assert set(inside) == {f"{hidden}/inside"}
