import json
import resource

import pytest

from collectors.spool import Spool
from collectors.spool_files import Message
from streams.schema.errors import SettingsError


def message(number, size=1000, collector="cpu", events=7):
    return Message("t", b"c/n", (("sequence", str(number).encode()),), bytes([number % 256]) * size, collector, events)


def numbers(taken):
    return [int(dict(found.headers)["sequence"]) for _entry, found in taken]


def drain(spool):
    seen = []
    while taken := spool.take(4, 1 << 20):
        seen += numbers(taken)
        for entry, _found in taken:
            spool.ack(entry)
    return seen


def crash(spool):
    # What a SIGKILL leaves: files as they are, the lock free.
    spool._guard.close()
    spool._close_writer()


def test_first_in_first_out_and_files_go_away(tmp_path):
    spool = Spool(tmp_path)
    for number in range(37):
        spool.append(message(number))
    assert spool.loads().messages == 37
    assert drain(spool) == list(range(37))
    assert spool.loads().bytes == 0
    assert not list(tmp_path.glob("*.seg"))
    spool.close()


def test_what_was_not_acknowledged_survives_a_crash_in_order(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for number in range(20):
        spool.append(message(number))
    for entry, _found in spool.take(5, 1 << 20)[:3]:
        spool.ack(entry)
    crash(spool)
    again = Spool(tmp_path, 64 * 1024)
    assert again.loads().recovered_messages == 17
    assert drain(again) == list(range(3, 20))
    again.append(message(99))
    assert drain(again) == [99]
    again.close()


@pytest.mark.parametrize("cut", [1, 700, 1010])
def test_a_torn_record_is_cut_off_and_the_rest_is_kept(tmp_path, cut):
    spool = Spool(tmp_path, 1 << 20)
    for number in range(5):
        spool.append(message(number))
    crash(spool)
    (segment,) = tmp_path.glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-cut])
    again = Spool(tmp_path, 1 << 20)
    assert again.loads().corrupt_records == 1
    assert drain(again) == [0, 1, 2, 3]
    again.close()


def test_beyond_the_bound_the_oldest_go_and_every_event_is_owed(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for number in range(300):
        spool.append(message(number, collector=("cpu", "events")[number % 2], events=number))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.seg")) <= 64 * 1024
    dropped = spool.loads().dropped_events
    kept = drain(spool)
    assert kept == list(range(kept[0], 300))
    assert kept[0] > 200
    assert dropped == sum(range(kept[0]))
    assert spool.owed("cpu") == sum(range(0, kept[0], 2))
    assert spool.owed("events") == sum(range(1, kept[0], 2))
    spool.close()


def test_messages_in_flight_are_never_dropped(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for number in range(20):
        spool.append(message(number))
    flying = spool.take(3, 1 << 20)
    for number in range(20, 400):
        spool.append(message(number))
    kept = numbers(flying)
    for entry, _found in flying:
        spool.ack(entry)
    kept += drain(spool)
    assert kept[:3] == [0, 1, 2]
    assert len(kept) * 7 + spool.owed("cpu") == 400 * 7
    spool.close()


def test_a_released_message_keeps_its_place(tmp_path):
    spool = Spool(tmp_path)
    for number in range(4):
        spool.append(message(number))
    for entry, _found in spool.take(4, 1 << 20):
        spool.release(entry)
    assert drain(spool) == [0, 1, 2, 3]
    spool.close()


def test_what_is_owed_survives_a_crash_and_is_repaid_once(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for number in range(200):
        spool.append(message(number))
    owed = spool.owed("cpu")
    assert owed > 0
    crash(spool)
    spool = Spool(tmp_path, 64 * 1024)
    assert spool.owed("cpu") == owed
    drain(spool)
    before = (tmp_path / "ledger.json").read_text()
    spool.append(message(1, events=owed), repays=owed)
    assert spool.owed("cpu") == 0
    crash(spool)
    # The crash came after the record and before the ledger: the record's ledger number says that it was repaid.
    (tmp_path / "ledger.json").write_text(before)
    spool = Spool(tmp_path, 64 * 1024)
    assert spool.owed("cpu") == 0
    assert json.loads((tmp_path / "ledger.json").read_text())["owed"] == {}
    spool.close()


def test_one_agent_for_each_directory(tmp_path):
    spool = Spool(tmp_path)
    with pytest.raises(SettingsError, match="in use"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="PERFSTREAM_SPOOL_DIRECTORY"):
        Spool(tmp_path / "file" / "x")


def test_a_disk_that_refuses_keeps_messages_in_memory_up_to_a_bound(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    monkeypatch.setattr("collectors.spool.MEMORY_BOUND", 10_000)

    def refuse(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(spool, "_write", refuse)
    for number in range(25):
        spool.append(message(number))
    assert spool.owed("cpu") == 15 * 7
    assert drain(spool) == list(range(15, 25))
    spool.close()


@pytest.fixture
def full_disk():
    """A disk that takes not one byte more, from ``on()`` to ``off()``: the kernel refuses this process's writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Disk:
        def on(self):
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

        def off(self):
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    disk = Disk()
    yield disk
    disk.off()


def test_a_full_disk_leaves_no_empty_files_and_order_is_kept(tmp_path, full_disk):
    spool = Spool(tmp_path)
    spool.append(message(0))
    full_disk.on()
    for number in range(1, 20):
        spool.append(message(number))
    assert len(list(tmp_path.glob("*.seg"))) == 1
    full_disk.off()
    spool.append(message(20))
    assert drain(spool) == list(range(21))
    assert not list(tmp_path.glob("*.seg"))
    spool.close()


@pytest.mark.parametrize("tail", [bytes(4096), b"\x01\0\0\0" + bytes(40), b"\xff" * 100])
def test_what_a_crashed_machine_leaves_at_the_end_is_no_record(tmp_path, tail):
    spool = Spool(tmp_path)
    spool.append(message(0))
    crash(spool)
    (segment,) = tmp_path.glob("*.seg")
    segment.write_bytes(segment.read_bytes() + tail)
    again = Spool(tmp_path)
    assert again.loads().corrupt_records == 1
    assert drain(again) == [0]
    again.close()


@pytest.mark.timeout(20)
def test_a_number_is_not_used_twice_when_the_newest_segment_is_dropped(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for number in range(60):
        spool.append(message(number))
    while spool.loads().bytes + spool._entries[-1].length + 8 <= 64 * 1024:
        spool.append(message(99))
    # All but the newest segment is in flight, so to make room the newest must go.
    newest = max(tmp_path.glob("*.seg"))
    spool.take(sum(entry.segment != int(newest.stem) for entry in spool._entries), 1 << 20)
    spool.append(message(100))
    waiting = spool.loads().messages
    assert json.loads((tmp_path / "ledger.json").read_text())["dropped"] == [int(newest.stem)]
    crash(spool)
    again = Spool(tmp_path, 64 * 1024)
    assert again.loads().recovered_messages == waiting
    assert drain(again)[-1] == 100
    again.close()


@pytest.mark.timeout(20)
def test_a_record_that_repays_and_makes_room_is_still_recognised_after_a_crash(tmp_path):
    spool = Spool(tmp_path, 64 * 1024)
    for number in range(200):
        spool.append(message(number))
    while spool.loads().bytes + spool._entries[-1].length + 40 < 64 * 1024:
        spool.append(message(1))
    before = (tmp_path / "ledger.json").read_text()
    owed = spool.owed("cpu")
    spool.append(message(1, events=owed), repays=owed)
    after = spool.owed("cpu")
    assert owed > after > 0  # a segment was dropped to make room, and what was owed before was repaid
    crash(spool)
    # The ledger as it was between the drop and the repayment.
    there = json.loads((tmp_path / "ledger.json").read_text())
    assert there["number"] == json.loads(before)["number"] + 2
    there["number"] -= 1
    there["owed"]["cpu"] += owed
    (tmp_path / "ledger.json").write_text(json.dumps(there))
    again = Spool(tmp_path, 64 * 1024)
    assert again.owed("cpu") == after
    again.close()


def test_a_message_that_cannot_be_read_back_is_owed_and_those_in_flight_before_it_survive(tmp_path):
    spool = Spool(tmp_path, 1 << 20)
    for number in range(4):
        spool.append(message(number))
    flying = spool.take(1, 1 << 20)
    (segment,) = tmp_path.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[flying[0][0].length + 900] ^= 1
    segment.write_bytes(data)
    assert numbers(spool.take(1, 1 << 20)) == [2]
    assert spool.owed("cpu") == 7
    crash(spool)
    again = Spool(tmp_path, 1 << 20)
    assert drain(again)[0] == 0
    assert again.owed("cpu") == 7
    again.close()


@pytest.mark.parametrize("name", ["ledger.json", "acked"])
@pytest.mark.parametrize("text", [b"", b"[1]", b'{"number": "x", "owed": 3}', bytes(16), b"\xff" * 16])
def test_a_damaged_note_does_not_stop_the_agent(tmp_path, name, text):
    spool = Spool(tmp_path)
    spool.append(message(5))
    crash(spool)
    (tmp_path / name).write_bytes(text)
    again = Spool(tmp_path)
    assert drain(again) == [5]
    again.close()
