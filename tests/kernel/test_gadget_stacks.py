"""``perfstream gadget profile cpu|offcpu``: known shares of functions, as text, table and graph."""

import re
import subprocess
from collections import Counter

from tests.kernel.known import Known
from tests.kernel.test_gadget_live import COMMAND, finish, numbers, running

BURN_MS = 1499


def test_cpu_time_of_a_process_is_folded_and_drawn(known, service, tmp_path):
    page = tmp_path / "deeper" / "cpu.html"
    with Known(known, "burn", BURN_MS, service=service) as program:
        arguments = ("profile", "cpu", "--pid", str(program.pid), "-o", "folded", "--flamegraph", str(page))
        with running(*arguments, waits_for="stderr") as (process, _):
            program.run()
            out, err = finish(process)
    total = Counter()
    for line in out.splitlines():
        path, _, value = line.rpartition(" ")
        for name in set(path.split(";")) & {"five", "three", "two", "main"}:
            total[name] += int(value)
    events, lost = numbers(err)
    assert lost == 0
    assert sum(int(line.rpartition(" ")[2]) for line in out.splitlines()) == events * round(1e9 / 49)
    assert 0.7 < total["main"] / (BURN_MS * 1e6) < 1.3
    # Some 75 samples: five standard errors of a share of a half are 0.29.
    assert abs(total["five"] / total["main"] - 0.5) < 0.29
    assert total["five"] > total["two"] > 0 < total["three"]
    assert {"five", "three", "two"} <= set(re.findall(r'"(\w+)"', page.read_text()))


LONG, PIPE, SHORT = 31, 7, 11


def test_waits_are_shown_by_function(known, service):
    with (
        running("profile", "offcpu", "--service", service, waits_for="stderr") as (process, _),
        Known(known, "waits", LONG, PIPE, SHORT, service=service) as program,
    ):
        said = program.run()
        out, _ = finish(process)
    heading, *lines = out.splitlines()
    assert heading.split() == ["SELF", "SELF", "%", "TOTAL", "TOTAL", "%", "FUNCTION"]
    shown = {line.split()[-1]: line.split()[2] for line in lines}
    unit = {"ms": 1e6, "s": 1e9}
    number, name = re.fullmatch(r"([\d.]+)(\w+)", shown["wait_long"]).groups()
    assert abs(float(number) * unit[name] / said["slept_ns"] - 1) < 0.05


def test_latencies_have_no_stacks():
    done = subprocess.run([*COMMAND, "profile", "runqlat", "-o", "folded"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cpu and offcpu" in done.stderr
