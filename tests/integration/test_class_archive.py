"""The archive of Kafka's classes: used by the broker, refused in silence when it does not fit, and not needed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy import class_archive
from deploy.broker import Broker, archive, jars_directory

pytestmark = pytest.mark.services


def test_the_broker_maps_it(broker):
    assert str(archive(jars_directory())) in Path(f"/proc/{broker.process.pid}/maps").read_text()


@pytest.mark.parametrize("kept", ["of other jars", "damaged", "none"])
def test_without_one_that_fits_it_starts_as_ever_and_says_nothing(tmp_path, monkeypatch, kept):
    there = jars_directory()
    monkeypatch.setenv("PERFSTREAM_CACHE", str(tmp_path / "cache"))
    moved = jars_directory()
    moved.mkdir(parents=True)
    for file in (*there.glob("*.jar"), there / "complete"):
        (moved / file.name).symlink_to(file.resolve())
    if kept == "of other jars":
        archive(moved).symlink_to(archive(there))
    elif kept == "damaged":
        archive(moved).write_bytes(os.urandom(5003))
    broker = Broker(tmp_path, 0, 0)
    command = broker.command("kafka.tools.StorageTool", "random-uuid")
    assert any("SharedArchiveFile" in part for part in command) is (kept != "none")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(r"[\w-]{22}\n", done.stdout)
    assert not [line for line in done.stderr.splitlines() if not line.startswith("SLF4J")]


def test_what_hinders_it_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PERFSTREAM_CACHE", str(tmp_path))
    jars_directory().mkdir()
    (jars_directory() / "complete").touch()  # without jars
    assert not class_archive.make()
    said = capsys.readouterr().err
    assert said.startswith("no archive of Kafka's classes")
    assert said.count("\n") == 1
    assert [file.name for file in jars_directory().iterdir()] == ["complete"]
