"""Kafka's classes, parsed and verified once: a class-data archive (AppCDS, JEP 310) that every later start maps.

Without it a broker's start is mostly Java reading and verifying 7,000 classes from 45 jars. It belongs to one Java and
to these jars where they lie; the JVM checks both, and goes on without it, silently, when they are others. Its length is
not checked and its pages are mapped, so a file that is there is whole: it is written beside its place, then renamed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.broker import Broker, archive, fetch_jars, free_port
from streams.schema.errors import PerfstreamError

_DUMP_S = 120


class _Listing(Broker):
    """A broker whose processes write down which classes they load."""

    def command(self, main: str, *arguments: str) -> list[str]:
        java, *rest = super().command(main, *arguments)
        return [java, f"-XX:DumpLoadedClassList={self._directory / main}.classes", *rest]


def make() -> bool:
    """Fetch the jars and make the archive, unless they are there; takes some 10 s. Returns whether it is there now.

    It only saves time, so what hinders it is one line on standard error, not an error.

    Raises:
        SettingsError: the jars cannot be fetched.
    """
    jars = fetch_jars()
    if archive(jars).exists():
        return True
    try:
        with tempfile.TemporaryDirectory(dir=jars) as directory:
            _dump(jars, Path(directory))
    except (PerfstreamError, OSError, subprocess.SubprocessError) as error:
        why = " ".join(str(error).split())
        sys.stderr.write(f"no archive of Kafka's classes, a start takes a second more: {why}\n")
        return False
    return True


def _dump(jars: Path, directory: Path) -> None:
    broker = _Listing(directory / "kafka", free_port(), free_port())
    broker.start()
    broker.stop(20)  # in good order: the list is complete when the JVM ends
    lists = sorted((directory / "kafka").glob("*.classes"))
    classes = directory / "classes"
    classes.write_text("".join(dict.fromkeys(line for each in lists for line in each.open())))
    made = directory / "archive"
    # This collector's dumps hold the heap's constants, too; any other can load them.
    command = [
        "java", "-Xshare:dump", "-XX:+UseG1GC", "-Xlog:disable", f"-XX:SharedClassListFile={classes}",
        f"-XX:SharedArchiveFile={made}", "-cp", f"{jars.resolve()}/*",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=_DUMP_S)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(archive(jars))
