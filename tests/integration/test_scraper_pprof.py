"""The pprof decoder against ``go tool pprof`` on the same bytes of a real Go program: every function, every type."""

import re
import subprocess
import time
import urllib.request

import numpy as np
import pytest

from collectors.scrapers import pprof
from streams.schema import stacks

pytestmark = pytest.mark.services
UNITS = {"nanoseconds": ("nanoseconds", "ns"), "bytes": ("B", "B"), "count": ("", "")}


@pytest.fixture(scope="module")
def target(gopprof):
    """The address of a running Go program."""
    with subprocess.Popen([str(gopprof)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.kill()


def fetch(target, path):
    with urllib.request.urlopen(f"http://{target}/debug/pprof/{path}", timeout=30) as answer:
        return answer.read()


def ours(profile, column):
    """Return {function: (flat, cum)} and the total of one type."""
    flat, cum = {}, {}
    for text, value in zip(profile.texts, profile.values[:, column].tolist(), strict=True):
        functions = [frame.function for frame in stacks.split(text)]
        flat[functions[-1]] = flat.get(functions[-1], 0) + value
        for function in set(functions):
            cum[function] = cum.get(function, 0) + value
    return {name: (flat.get(name, 0), cum[name]) for name in cum if cum[name]}, int(profile.values[:, column].sum())


def theirs(path, name, unit):
    """Return the same from the reference tool."""
    option, suffix = UNITS[unit]
    command = ["go", "tool", "pprof", "-top", "-nodecount=0", "-nodefraction=0", "-edgefraction=0",
               "-symbolize=none", f"-sample_index={name}"]  # fmt: skip
    command += [f"-unit={option}"] if option else []
    text = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True).stdout
    total = re.search(r"of (\d+)(?:ns|B)? total", text)
    found = {}
    started = False
    for line in text.splitlines():
        if re.match(r"\s*flat\s+flat%", line):
            started = True
        elif started:
            flat, _, _, cum, _, function = line.split(None, 5)
            function = re.sub(r" \((partial-)?inline\)$", "", function)
            # What has no name at all is called otherwise here.
            function = stacks.UNKNOWN if function == "<unknown>" else function
            found[function] = (int(flat.removesuffix(suffix)), int(cum.removesuffix(suffix)))
    return found, int(total.group(1)) if total else 0


@pytest.mark.parametrize("path", ["profile?seconds=1", "heap", "allocs", "goroutine", "mutex", "block", "threadcreate"])
def test_every_function_of_every_type_equals_the_reference_tool(target, tmp_path, path):
    deadline = time.monotonic() + 20
    while True:
        data = fetch(target, path)
        profile = pprof.decode(data)
        # Three levels of inlining stand above each other once a sample has met them.
        inlined = [text for text in profile.texts if "main.twice" in text and "main.mix" in text]
        if (inlined if path.startswith("profile") else profile.texts) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    saved = tmp_path / "profile.pb.gz"
    saved.write_bytes(data)
    assert profile.samples > 0
    for column, (name, unit) in enumerate(zip(profile.types, profile.units, strict=True)):
        mine, total = ours(profile, column)
        reference, reference_total = theirs(saved, name, unit)
        reference = {function: counts for function, counts in reference.items() if counts != (0, 0)}
        # A sample without any frame (a goroutine that has not begun) is in the tool's total and in none of its rows.
        bare = reference_total - sum(flat for flat, _cum in reference.values())
        if bare:
            flat, cum = reference.get(stacks.UNKNOWN, (0, 0))
            reference[stacks.UNKNOWN] = (flat + bare, cum + bare)
        assert mine == reference, name
        assert total == reference_total, name
    if path.startswith("profile"):
        functions = ours(profile, 1)[0]
        assert inlined
        assert functions["main.hot"][1] > 0
        assert profile.period == 10_000_000
        assert (profile.period_type, profile.period_unit) == ("cpu", "nanoseconds")
        assert np.all(profile.values[:, 1] == profile.values[:, 0] * profile.period)
