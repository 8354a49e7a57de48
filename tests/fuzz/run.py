"""Fuzzes the decoders: ``python -m tests.fuzz.run [TARGET ...] [--seconds N] [--seed N] [--keep]``.

Each target runs in a child of its own, guided by line coverage of the project's code: an input that reaches a new line
is mutated further (``--keep`` adds it to the corpus). Before an input is tried it stands in memory shared with the
parent, so that one which ends or hangs the child is known; it is written to ``--found`` and told. Exit status 1 when
anything was found.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutate import mutated

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"
LONGEST = 1 << 20
INPUT_S = 10
MEMORY = 3 << 30
_SIZE = struct.Struct("<Q")


class HangError(BaseException):
    """An input took longer than ``INPUT_S``."""


class Coverage:
    """Lines of the project that were ever reached. Costs about ten times the time of plain Python."""

    def __init__(self) -> None:
        self._seen: set[tuple[Any, int]] = set()
        self._ours: dict[str, bool] = {}
        self.new = False

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        if name not in self._ours:
            self._ours[name] = name.startswith(str(ROOT)) and ".venv" not in name and "/tests/" not in name
        return self._line if self._ours[name] else None

    def _line(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line" and (place := (frame.f_code, frame.f_lineno)) not in self._seen:
            self._seen.add(place)
            self.new = True
        return self._line

    def __len__(self) -> int:
        return len(self._seen)


def child(name: str, options: argparse.Namespace) -> int:
    """Run one target; the shared file holds the input in progress."""
    from tests.fuzz import targets

    target = targets.broken if name == "broken" else targets.TARGETS[name]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _hang)
    coverage = Coverage()
    chance = random.Random(f"{options.seed} {name}")
    with Path(options.shared).open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:

        def tried(data: bytes) -> bool:
            shared[_SIZE.size : _SIZE.size + len(data)] = data
            shared[: _SIZE.size] = _SIZE.pack(len(data))
            coverage.new = False
            signal.alarm(INPUT_S)
            sys.settrace(coverage)
            try:
                target(data)
            finally:
                sys.settrace(None)
                signal.alarm(0)
            return coverage.new

        # What a target loads or compiles at first is not the input's time.
        target(b"")
        pool = seeds(name)
        for data in pool:
            tried(data)
        begun, runs, kept = time.monotonic(), 0, 0
        while (runs < options.runs or not options.runs) and time.monotonic() - begun < options.seconds:
            runs += 1
            data = mutated(
                chance, chance.choice(pool[-50:] if chance.random() < 0.3 else pool), chance.choice(pool), LONGEST
            )
            if tried(data):
                pool.append(data)
                kept += 1
                if options.keep:
                    keep(CORPUS / name, data)
    print(f"{name}: {runs} inputs, {len(coverage)} lines, {kept} inputs reached new ones", flush=True)
    return 0


def _hang(*_: object) -> None:
    raise HangError


def seeds(name: str) -> list[bytes]:
    """Return a target's corpus in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()] or [b""]


def keep(directory: Path, data: bytes) -> Path:
    """Write an input under its digest."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / hashlib.blake2b(data, digest_size=8).hexdigest()
    path.write_bytes(data)
    return path


def parent(names: list[str], options: argparse.Namespace) -> int:
    """Run the targets, ``--jobs`` at a time; returns how many had a finding."""
    waiting, running, bad = list(names), {}, 0
    with tempfile.TemporaryDirectory() as directory:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                name = waiting.pop(0)
                shared = Path(directory) / name
                shared.write_bytes(bytes(_SIZE.size + LONGEST))
                command = [
                    sys.executable, "-m", "tests.fuzz.run", name, "--child", "--shared", str(shared),
                    "--seconds", str(options.seconds), "--runs", str(options.runs), "--seed", str(options.seed),
                ]  # fmt: skip
                command += ["--keep"] if options.keep else []
                process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
                running[name] = process, shared, time.monotonic()
            for name, (process, shared, begun) in list(running.items()):
                try:
                    # Native code that hangs does not see the alarm.
                    _, errors = process.communicate(timeout=0.05)
                except subprocess.TimeoutExpired:
                    if time.monotonic() - begun > options.seconds + 60 + 6 * INPUT_S:
                        process.kill()
                    continue
                del running[name]
                if process.returncode:
                    bad += 1
                    report(name, process.returncode, errors, shared, options)
    return bad


def report(name: str, status: int, errors: str, shared: Path, options: argparse.Namespace) -> None:
    """Say what was found, and keep the input."""
    data = shared.read_bytes()
    (size,) = _SIZE.unpack_from(data)
    path = keep(options.found / name, data[_SIZE.size : _SIZE.size + size])
    how = f"signal {signal.Signals(-status).name}" if status < 0 else errors.strip().rpartition("\n")[2][:300]
    print(f"FOUND {name}: {how}\n  input: {path} ({size} bytes)\n{errors[-3000:]}", flush=True)


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="default: all of them")
    parser.add_argument("--seconds", type=float, default=600, help="for each target (600)")
    parser.add_argument("--runs", type=int, default=0, help="end after so many inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="add inputs that reach new lines to the corpus")
    parser.add_argument("--found", type=Path, default=ROOT / "artifacts" / "fuzz", help="where findings go")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shared", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        try:
            return child(options.targets[0], options)
        except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
            traceback.print_exc()
            return 1
    from tests.fuzz.targets import TARGETS

    if wrong := set(options.targets) - TARGETS.keys() - {"broken"}:
        parser.error(f"no target {min(wrong)}; there are {', '.join(TARGETS)}")
    return 1 if parent(options.targets or list(TARGETS), options) else 0


if __name__ == "__main__":
    sys.exit(main())
