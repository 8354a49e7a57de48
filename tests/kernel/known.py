"""Running the known workloads of ``programs/``, collectors around them, and bpftrace as the second opinion."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread")


def build(source, target, *flags, compiler="gcc"):
    subprocess.run([compiler, *(flags or FLAGS), "-o", target, source], check=True, timeout=120)
    return target


def read_line(stream, seconds=60):
    """Return the next line of an unbuffered pipe."""
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        assert select.select([stream], [], [], max(0, deadline - time.monotonic()))[0], f"no line in time: {line!r}"
        byte = os.read(stream.fileno(), 1)
        assert byte, f"the program ended: {line!r}"
        line += byte
    return line.decode()


class Known:
    """A workload that is ready, does its work at ``run``, and lives (so that it can be looked at) until the end."""

    def __init__(self, program, *arguments, service="", prefix=(), env=()):
        environment = {"PATH": os.environ["PATH"]} | ({"OTEL_SERVICE_NAME": service} if service else {}) | dict(env)
        self.process = subprocess.Popen(
            [*prefix, str(program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def __enter__(self):
        assert read_line(self.process.stdout) == "ready\n"
        return self

    def go(self):
        self.process.stdin.write(b"\n")

    def answer(self):
        """Return what it says of its work, when it waits for its end: it does nothing more."""
        said = json.loads(read_line(self.process.stdout))
        until(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] == "S")
        return said

    def run(self):
        self.go()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(30)
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def started(*collectors):
    with contextlib.ExitStack() as stack:
        for each in collectors:
            stack.callback(each.close)
            each.start()
        yield collectors[0] if len(collectors) == 1 else collectors


class Taken:
    """All rows of several collects, and the sums of what they said."""

    def __init__(self):
        self.rows, self.events, self.lost, self.batches = [], 0, 0, []

    def take(self, collector):
        now = time.time_ns()
        batch = collector.collect(now, now)
        if batch is not None:
            self.batches.append(batch)
            self.rows += batch.batch.to_pylist()
            self.events += batch.events
            self.lost += batch.lost
        return self

    def of(self, **fields):
        return [row for row in self.rows if all(row[name] == value for name, value in fields.items())]


def taken(collector):
    return Taken().take(collector)


class Bpftrace:
    """A bpftrace script around a block; its maps afterwards. Attached when the block begins."""

    def __init__(self, script):
        tick = 'interval:ms:50 { printf("tick%d\\n"); } '
        self._text = tick.replace("%d", "1") + script + " " + tick.replace("%d", "2")
        self.maps = {}

    def __enter__(self):
        self._process = subprocess.Popen(
            ["bpftrace", "-f", "json", "-e", self._text],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        seen = set()
        while len(seen) < 2:
            line = json.loads(read_line(self._process.stdout))
            if line["type"] == "printf":
                seen.add(line["data"])
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)
        out, err = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, err.decode()
        for line in out.decode().splitlines():
            if line:
                found = json.loads(line)
                if found["type"] in ("map", "hist"):
                    self.maps.update(found["data"])


def until(condition, seconds=30):
    """Poll a condition and return what it returned when that was true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)
    return result


def children_of(parent):
    """Return {name: [pid, ...]} of the processes that one has started."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (place / "stat").read_text().partition("(")[2].rpartition(")")
                if int(rest.split()[1]) == parent:
                    found.setdefault(name, []).append(int(place.name))
    return found
