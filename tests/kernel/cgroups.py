"""Real cgroups of this machine, and processes in them; needs root."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from pathlib import Path

from tests.kernel.known import until


@contextlib.contextmanager
def hierarchy(root, kind, *options):
    subprocess.run(["mount", "-t", kind, *options, "perfstream", str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


@contextlib.contextmanager
def cgroup(root, path):
    """Make a cgroup below one of our own, and remove both afterwards."""
    top = root / f"perfstream-{uuid.uuid4().hex[:8]}"
    made = [top, *(top / part for part in reversed(list(map(str, Path(path).parents))[:-1])), top / path]
    try:
        for each in made:
            each.mkdir(exist_ok=True)
        yield top / path
    finally:
        for each in reversed(made):
            with contextlib.suppress(FileNotFoundError):
                each.rmdir()


@contextlib.contextmanager
def process_in(directory, *environ):
    """A process in a cgroup."""
    with subprocess.Popen(["/bin/sleep", "60"], env=dict(each.split("=") for each in environ)) as process:
        try:
            (directory / "cgroup.procs").write_text(str(process.pid))
            until(lambda: Path(f"/proc/{process.pid}/exe").readlink().name == "sleep")
            yield process
        finally:
            process.kill()
