"""A program in each language whose work is split 7 to 3 between two functions: names right, shares within 3 points."""

import subprocess
from collections import Counter

import pytest

from collectors.profile.cpu import ProfileCpu
from streams.schema.stacks import split
from tests.kernel.known import PROGRAMS, Known, started, taken

SOURCES = PROGRAMS / "split"
HZ = 997.0
ROUNDS = 7000
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
