"""The pure parts of the collectors: rows of histograms, addresses, names of calls, sampling of waits, merging."""

import re
import socket
import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.addresses import BYTES, unpack
from collectors.base import CommOnly
from collectors.events import text
from collectors.histograms import _KEY, _VALUE, rows
from collectors.profile import syscall_table
from collectors.profile.blockio import BlockLatency
from collectors.profile.cpu import ProfileCpu
from collectors.profile.offcpu import OffCpu
from collectors.stack_count import _merge, _StackTable, entries
from collectors.trace.exit import Exit
from streams.schema.errors import UsageError
from streams.schema.messages import LATENCY

SERVICES = {1: "a", 2: "a", 3: "b", 4: ""}


def identities(tgids):
    return CommOnly().columns(tgids, np.zeros(len(tgids), np.uint64), [SERVICES[int(t)] for t in tgids])


def operation(op, kind):
    return f"{'same' if op > 1 else op} {kind}"


elements = st.dictionaries(
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 975), st.integers(0, 2)),
    st.tuples(st.integers(1, 1 << 40), st.integers(0, 1 << 50), st.integers(0, (1 << 64) - 1)),
    min_size=1,
    max_size=60,
)


@settings(deadline=None)  # the first call loads half of Arrow
@given(elements)
def test_rows_hold_every_count_once(drained):
    keys = np.array(list(drained), _KEY)
    values = np.array(list(drained.values()), _VALUE)
    wanted = defaultdict(lambda: [defaultdict(int), 0, 0])
    for (tgid, op, bucket, kind), (count, total, most) in drained.items():
        row = wanted[SERVICES[tgid], operation(op, kind)]
        row[0][bucket] += count
        row[1] += total
        row[2] = max(row[2], most)
    batch = rows(keys, values, 17, "probe", operation, identities)
    assert batch.schema == LATENCY
    batch.validate(full=True)
    got = {(row["service"], row["operation"]): row for row in batch.to_pylist()}
    assert len(got) == batch.num_rows
    assert got.keys() == wanted.keys()
    for key, (counts, total, most) in wanted.items():
        row = got[key]
        assert (row["time_ns"], row["probe"], row["namespace"]) == (17, "probe", "")
        assert dict(zip(row["buckets"], row["counts"], strict=True)) == counts
        assert row["buckets"] == sorted(row["buckets"])
        assert (row["count"], row["sum_ns"], row["max_ns"]) == (sum(counts.values()), total, most)


def packed(family, own, port, peer, peer_port):
    return struct.pack("<HHHH16s16s", family, port, peer_port, 0, own, peer)


def test_addresses_of_both_families():
    four = packed(socket.AF_INET, socket.inet_aton("10.0.0.1"), 4711, socket.inet_aton("10.9.8.7"), 443)
    assert len(four) == BYTES
    assert unpack(four) == ("10.0.0.1:4711", "10.9.8.7:443")
    six = [socket.inet_pton(socket.AF_INET6, each) for each in ("::1", "2001:db8::7")]
    assert unpack(packed(socket.AF_INET6, six[0], 1, six[1], 65535)) == ("[::1]:1", "[2001:db8::7]:65535")
    mapped = socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")
    assert unpack(packed(socket.AF_INET6, mapped, 80, mapped, 81)) == ("127.0.0.1:80", "127.0.0.1:81")


def test_names_of_system_calls():
    x86, arm = syscall_table.names("x86_64"), syscall_table.names("aarch64")
    assert [x86[n] for n in (0, 59, 202, 230, 231, 334, 424, 435, 452)] == [
        "read", "execve", "futex", "clock_nanosleep", "exit_group", "rseq", "pidfd_send_signal", "clone3", "fchmodat2"
    ]  # fmt: skip
    assert [arm[n] for n in (64, 93, 98, 203, 221, 260, 293, 435)] == [
        "write", "exit", "futex", "connect", "execve", "wait4", "rseq", "clone3"
    ]  # fmt: skip
    for path, table in (("x86_64-linux-gnu/asm/unistd_64.h", x86), ("asm-generic/unistd.h", arm)):
        header = Path("/usr/include", path)
        for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text() if header.exists() else ""):
            if table is x86:
                assert table[int(number)] == name


def test_the_operation_of_a_device_that_is_gone_is_its_number():
    assert BlockLatency().operation((4095 << 20) | 77, 1) == "4095:77 write"
    assert BlockLatency().operation((4095 << 20) | 77, 34) == "4095:77 op34"


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "code 0"), (7 << 8, "code 7"), (9, "SIGKILL"), (11 | 0x80, "SIGSEGV, core dumped"), (60, "signal 60")],
)
def test_wait_status_in_words(status, words):
    assert Exit().describe({"result": status}) == (words, [])


def test_c_strings():
    assert text(b"abc\0def") == "abc"
    assert text(b"\xff\0") == "\N{REPLACEMENT CHARACTER}"


def test_rates_and_thresholds_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match=r"0\.5 Hz is not between 1 and 1000"):
        ProfileCpu(CommOnly(), frequency_hz=0.5)
    with pytest.raises(UsageError, match="below 1 microsecond"):
        OffCpu(CommOnly(), threshold_ns=999)
    collector = ProfileCpu(CommOnly(), frequency_hz=49)
    collector.set_frequency(99)
    assert collector.frequency_hz == pytest.approx(49, rel=1e-6)  # from the next interval on
    collector.close()


def test_the_period_of_waits_follows_their_rate():
    collector = OffCpu(CommOnly(), threshold_ns=1_000_000, most_per_s=500)
    assert collector._next_period(500) == 0
    assert collector._next_period(501) == 2_000_000
    collector._period_ns = 2_000_000
    assert collector._next_period(1001) == 8_000_000
    assert collector._next_period(10_000) == 64_000_000
    assert collector._next_period(200) == 2_000_000
    assert collector._next_period(124) == 0
    collector._period_ns = 1 << 29
    assert collector._next_period(10_000) == 1_000_000_000
    collector.close()


@pytest.mark.parametrize(("expected", "room"), [(0, 2048), (1024, 2048), (1025, 4096), (1e9, 16384)])
def test_room_for_stacks(expected, room):
    assert entries(expected) == room


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-(1 << 60), 1 << 60)), max_size=50))
def test_merging_adds_up_exactly(given_rows):
    codes = [np.array([row[at] for row in given_rows], np.int32) for at in (0, 1)]
    first, sums = _merge(codes, np.array([row[2] for row in given_rows], np.int64))
    wanted = defaultdict(int)
    for one, two, amount in given_rows:
        wanted[one, two] += amount
    assert {tuple(int(code[i]) for code in codes): total for i, total in zip(first, sums.tolist(), strict=True)} == {
        key: (value + (1 << 63)) % (1 << 64) - (1 << 63) for key, value in wanted.items()
    }


def test_stacks_by_hash():
    ips = np.zeros((2, 127), np.uint64)
    ips[0, :3], ips[1, :1] = (7, 8, 9), 5
    table = _StackTable(np.array([900, 100], np.uint64), ips)
    assert [stack.tolist() for stack in table.stacks(np.array([100, 900, 0, 5], np.uint64))] == [[5], [7, 8, 9], [], []]
    empty = _StackTable(np.zeros(0, np.uint64), np.zeros((0, 127), np.uint64))
    assert [stack.tolist() for stack in empty.stacks(np.array([3], np.uint64))] == [[]]


def test_without_a_node_the_service_is_the_command():
    columns = CommOnly().columns(np.array([1, 2], np.uint32), np.zeros(2, np.uint64), ["x", "y"])
    assert columns["service"].to_pylist() == ["x", "y"]
    assert isinstance(columns["pod"], pa.DictionaryArray)
    assert columns["pod"].to_pylist() == ["", ""]
