"""A program in each language whose work is split 7 to 3 between two functions: names right, shares within 3 points."""

import os
import subprocess
import time
from collections import Counter

import numpy as np
import pytest

from collectors.interpreted import Interpreted
from collectors.profile.cpu import ProfileCpu
from collectors.profile.python import PythonStacks
from streams.schema.stacks import split
from tests.kernel.known import PROGRAMS, Known, children_of, started, taken, until

SOURCES = PROGRAMS / "split"
HZ = 997.0
ROUNDS = 79
FRAMES = "-fno-omit-frame-pointer"
# language: (how it is built, how it is run, its two functions, a frame that every stack reaches when it is whole).
# A function that calls nothing needs no frame of its own; its caller is then missing whoever looks, the root is not.
LANGUAGES = {
    "c": (["gcc", "-O1", FRAMES, f"-DROUNDS={ROUNDS}", "-o", "{home}/c", "{sources}/split.c"], ["{home}/c"],
          ("seven_parts", "three_parts"), "__libc_start_call_main"),
    "cxx": (["g++", "-O1", FRAMES, f"-DROUNDS={ROUNDS}", "-o", "{home}/cxx", "{sources}/split.cc"], ["{home}/cxx"],
            ("work::Share<7>::spin()", "work::Share<3>::spin()"), "__libc_start_call_main"),
    "rust": (["rustc", "-O", "-C", "force-frame-pointers=yes", "-o", "{home}/rust", "{sources}/split.rs"],
             ["{home}/rust", ROUNDS], ("split::seven_parts", "split::three_parts"), "split::main"),
    "go": (["go", "build", "-o", "{home}/go", "{sources}/split.go"], ["{home}/go", ROUNDS],
           ("main.sevenParts", "main.threeParts"), "runtime.main"),
    "java": (["javac", "-d", "{home}", "{sources}/Split.java"],
             ["java", "-XX:+PreserveFramePointer", "-XX:CompileCommand=quiet",
              "-XX:CompileCommand=dontinline,Split::*Parts", "-cp", "{home}", "Split", ROUNDS],
             ("void Split.sevenParts()", "void Split.threeParts()"), "JavaMain"),
    "node": (["true"],
             ["node", "--perf-basic-prof", "--no-turbo-inlining", "--no-logfile-per-isolate",
              "--logfile={home}/v8.log", "{sources}/split.js", ROUNDS],
             ("sevenParts", "threeParts"), "Builtins_JSEntry"),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the programs are, built at the same time."""
    place = tmp_path_factory.mktemp("split")
    running = [
        subprocess.Popen([part.format(home=place, sources=SOURCES) for part in build])
        for build, *_ in LANGUAGES.values()
    ]
    assert [process.wait(120) for process in running] == [0] * len(running)
    return place


@pytest.mark.parametrize("language", LANGUAGES)
def test_shares_are_those_of_the_work(language, home, service, workloads):
    _, run, functions, root = LANGUAGES[language]
    command = [str(part).format(home=home, sources=SOURCES) for part in run]
    with Known(*command, service=service) as program, started(ProfileCpu(workloads, frequency_hz=HZ)) as collector:
        if language == "java":  # what an operator does, or an agent in the JVM
            subprocess.run(["jcmd", str(program.pid), "Compiler.perfmap"], check=True, capture_output=True, timeout=60)
        program.run()
        rows = taken(collector).of(service=service)
    whole = sum(row["value"] for row in rows)
    leaves, within, others = Counter(), 0, Counter()
    for row in rows:
        names = [frame.function for frame in split(row["stack"]["frames"]) if not frame.function.endswith("_[k]")]
        leaves[names[-1] if names else ""] += row["value"]
        within += row["value"] if root in names else 0
        others.update(dict.fromkeys(set(names), row["value"]))
    assert whole > 600_000_000
    shares = [leaves[name] / whole for name in functions]
    print(language, whole / 1e9, [round(share, 3) for share in shares], round(within / whole, 3))
    assert shares == pytest.approx([0.7, 0.3], abs=0.03), leaves.most_common(6)
    assert within > 0.97 * whole, others.most_common(9)


@pytest.fixture
def preferred():
    """What the test starts is preferred by the scheduler: it, and py-spy, seldom wait for a CPU."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, -15)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)


def by_py_spy(service, workloads):
    """Run the program once; return (its rows, what it said, what py-spy cost in cores)."""
    interpreted = Interpreted()
    python = PythonStacks(interpreted, 499.0, interval_s=5.0, most_cost=1.0)
    cpu = ProfileCpu(workloads, frequency_hz=HZ, interval_s=5.0, interpreted=interpreted)
    with Known("/usr/bin/python3", SOURCES / "split.py", 13, service=service) as program, started(cpu, python):
        taken(cpu)
        # As if it had been busy before, so that py-spy is there from its first turn to its last.
        busy = np.array([program.pid], np.uint64), np.array([10**10], np.int64)
        assert python.exchange(*busy, time.time_ns() + 5 * 10**9) == {}
        until(lambda: "py-spy" in children_of(os.getpid()))
        said = program.run()
        until(lambda: python.stats().told_ns)
        return taken(cpu).of(service=service), said, python.stats().told_ns / said["cpu_ns"]


@pytest.mark.alone
def test_python_in_its_own_functions_by_py_spy(service, workloads, preferred):
    # It samples a few hundred times a run: three runs, so that chance stays well within three points.
    runs = [by_py_spy(f"{service}-{run}", workloads) for run in range(3)]
    rows = [row for found, *_ in runs for row in found]
    spent = sum(said["cpu_ns"] for _, said, _ in runs)
    seven = sum(said["cpu_ns"] * said["seven"] for _, said, _ in runs) / spent
    whole = sum(row["value"] for row in rows)
    leaves, lines = Counter(), Counter()
    for row in rows:
        frames = split(row["stack"]["frames"])
        leaves[frames[-1].function] += row["value"]
        if frames[-1].function.endswith("_parts"):
            assert [frame.function for frame in frames[:2]] == ["<module>", "work"]
            assert {frame.file for frame in frames} == {str(SOURCES / "split.py")}
            lines[frames[-1].line] += row["value"]
    shares = [leaves[name] / whole for name in ("seven_parts", "three_parts")]
    print("python", whole / 1e9, [round(share, 3) for share in shares], seven, [cost for *_, cost in runs])
    # What the interpreter spent, once: neither its own frames beside Python's, nor less.
    assert whole == pytest.approx(spent, rel=0.03)
    # On a busy machine not quite 7 to 3: py-spy does not notice that what it looks at waits for a CPU.
    assert shares == pytest.approx([seven, 1 - seven], abs=0.03), leaves
    text = (SOURCES / "split.py").read_text().splitlines()
    loops = [number for number, line in enumerate(text, 1) if "for _" in line]
    assert sum(lines[at] + lines[at + 1] for at in loops) > 0.95 * whole, lines
    assert {(row["type"], row["unit"], row["version"]) for row in rows} == {("cpu", "nanoseconds", rows[0]["version"])}
    assert all(cost > 0 for *_, cost in runs)
