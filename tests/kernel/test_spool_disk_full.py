"""The spool on a disk that fills up and gets room again: nothing corrupt, nothing forgotten, no hands needed."""

import contextlib
import os
from contextlib import contextmanager

import pytest

from collectors import spool as module
from collectors.spool import Spool
from collectors.spool_files import Message
from tests.kernel.disk import mounted

EVENTS = 1009


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MB."""
    with mounted(tmp_path / "disk", "2m") as mount:
        yield mount


@contextmanager
def full(disk):
    """Take all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


def message(number):
    return Message("t", b"c/n", (("sequence", str(number).encode()),), os.urandom(20_000), "cpu", EVENTS)


def drained(spool):
    found = []
    while taken := spool.take(16, 1 << 20):
        for entry, one in taken:
            found.append(int(dict(one.headers)["sequence"]))
            spool.ack(entry)
    return found


def test_it_goes_on_in_memory_to_a_bound_and_on_disk_again_when_there_is_room(disk, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_BOUND", 13 * 20_000)
    spool = Spool(disk / "spool", 1 << 20)
    for number in range(5):
        spool.append(message(number))
    assert spool.trouble == ""
    with full(disk):
        for number in range(5, 5 + 29):
            spool.append(message(number))
        assert "No space left on device" in spool.trouble
        assert "13 messages" in spool.trouble
        loads = spool.loads()
        assert loads.messages == 5 + 13
        assert loads.dropped_events == spool.owed("cpu") == 16 * EVENTS
        # Kafka may come and take some meanwhile: that needs no room either.
        first = spool.take(3, 1 << 20)
        for entry, _ in first:
            spool.ack(entry)
    spool.append(message(34))
    assert spool.trouble == ""
    assert [int(dict(one.headers)["sequence"]) for _, one in first] == [0, 1, 2]
    assert drained(spool) == [3, 4, *range(21, 35)]
    assert spool.loads().corrupt_records == 0
    # What was given in is there or owed.
    assert spool.owed("cpu") == 16 * EVENTS
    spool.close()
    again = Spool(disk / "spool", 1 << 20)
    assert (again.loads().messages, again.loads().corrupt_records, again.owed("cpu")) == (0, 0, 16 * EVENTS)
    again.close()


def test_an_agent_that_ends_while_the_disk_is_full_owes_what_was_in_memory(disk):
    spool = Spool(disk / "spool", 1 << 20)
    for number in range(3):
        spool.append(message(number))
    with full(disk):
        spool.append(message(3))
        spool.append(message(4))
        os.truncate(disk / "filler", 1 << 20)  # some room for the ledger
        spool.close()
    again = Spool(disk / "spool", 1 << 20)
    assert drained(again) == [0, 1, 2]
    assert again.owed("cpu") == 2 * EVENTS
    assert again.loads().corrupt_records == 0
    again.close()
