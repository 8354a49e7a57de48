"""Builds and runs the known workload; afterwards it knows the truth to hold the measurement against."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streams.schema.errors import SettingsError

HERE = Path(__file__).parent
BURN_SHARES = {"burn_five": 0.5, "burn_three": 0.3, "burn_two": 0.2}
EXECS = 211
CONNECTS = 101
REFUSED = 13
WRITES = 307
VERSION = "v1.0"


@dataclass
class Workload:
    """The processes of the workload, each a service of its own (``demo-burn``, ``demo-exec``, ...)."""

    directory: Path
    seconds: float
    go_address: str = ""
    truth: dict[str, dict[str, float]] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def build(self) -> None:
        """Compile the C workload, and the Go one when Go is there.

        Raises:
            SettingsError: no C compiler, or it failed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise SettingsError("no C compiler for the demo's workload; install one: apt-get install gcc libc6-dev")
        _build(
            [compiler, "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-o", str(self._program),
             str(HERE / "workload.c")],
            HERE,
        )  # fmt: skip
        # A program of its own, so that its execs cannot be taken for anybody else's.
        shutil.copy("/bin/true", self._nothing)
        if shutil.which("go"):
            _build(["go", "build", "-o", str(self.directory / "demo-go"), "."], HERE / "gopprof")

    @property
    def has_go(self) -> bool:
        """Whether the Go program was built."""
        return (self.directory / "demo-go").exists()

    @property
    def _program(self) -> Path:
        return self.directory / "demo-workload"

    @property
    def _nothing(self) -> Path:
        return self.directory / "demo-nothing"

    def start_go(self) -> None:
        """Start the Go program, so that its address can go into the agent's settings."""
        if self.has_go:
            process = self._start("go", [str(self.directory / "demo-go"), str(self.seconds + 60)])
            assert process.stdout is not None
            self.go_address = process.stdout.readline().strip()

    def start(self) -> None:
        """Start everything else."""
        program = str(self._program)
        self._start("burn", [program, "burn", str(self.seconds)], cpu=(os.cpu_count() or 1) - 1)
        for number in (1, 2):
            self._start(f"contend{number}", [program, "contend", str(self.seconds)], service="demo-contend", cpu=0)
        self._start("exec", [program, "exec", str(EXECS), str(self._nothing)])
        self._start("connect", [program, "connect", str(CONNECTS), str(REFUSED), str(self.seconds * 0.8)])
        self._start("write", [program, "write", str(WRITES), str(self.directory / "written")])

    def _start(
        self, name: str, command: Sequence[str], *, service: str = "", cpu: int | None = None
    ) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "OTEL_SERVICE_NAME": service or f"demo-{name}",
            "OTEL_RESOURCE_ATTRIBUTES": f"service.version={VERSION}",
        }
        if cpu is not None and shutil.which("taskset"):
            command = ["taskset", "-c", str(cpu), *command]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self._running[name] = process
        return process

    def finish(self) -> None:
        """Wait for the workload's end and keep what each part says it did.

        Raises:
            SettingsError: a part failed.
        """
        for name, process in self._running.items():
            if name == "go":
                continue
            output, _ = process.communicate(timeout=self.seconds + 120)
            if process.returncode != 0:
                raise SettingsError(f"the demo's workload '{name}' failed with {process.returncode}")
            self.truth[name] = json.loads(output.strip().splitlines()[-1])

    def stop(self) -> None:
        """End whatever still runs."""
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
            with contextlib.suppress(ValueError):
                process.communicate()


def _build(command: Sequence[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SettingsError(f"the demo's workload does not compile: {done.stderr.strip()[-300:]}")
