"""dns: every question to a real server, by socket filter, with the process that asked and the resolver's call."""

import errno
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from collectors import dns_pairs
from collectors.trace.dns import Dns
from collectors.wanted import Wanted
from tests.kernel.known import Bpftrace, Known, Taken, started, until

PROGRAM = Path(__file__).parent / "programs" / "dnsworld.py"
A, AAAA, NXDOMAIN, SILENT, CALLS, LOCAL = 53, 29, 13, 3, 31, 7
SENT = A + AAAA + NXDOMAIN + SILENT + 2 * CALLS
GIVE_UP_NS = 1_500_000_000


@pytest.fixture
def world(service, tmp_path):
    apart = ("unshare", "--net", "--mount", sys.executable)
    counts = (A, AAAA, NXDOMAIN, SILENT, CALLS, LOCAL)
    with Known(PROGRAM, *counts, tmp_path / "resolv.conf", service=service, prefix=apart) as program:
        yield program


def attributes(row):
    return dict(row["attributes"])


def test_every_question_is_told_with_who_asked_and_what_came_back(world, service, workloads, monkeypatch):
    monkeypatch.setattr(dns_pairs, "GIVE_UP_NS", GIVE_UP_NS)
    second = 'uprobe:libc:getaddrinfo /comm == "python"/ { @[pid] = count(); }'
    found = Taken()
    with started(Dns(workloads)) as collector, Bpftrace(second) as trace:
        began = time.monotonic()
        said = world.run()
        until(lambda: len(found.take(collector).of(service=service)) >= SENT + LOCAL)
        took_s = time.monotonic() - began
    rows = found.of(service=service)
    assert found.lost == 0
    assert len(rows) == SENT + LOCAL
    kinds = {1: "A", 28: "AAAA"}
    assert Counter(row["detail"] for row in rows if attributes(row)["type"] != "getaddrinfo") == Counter(
        f"{name} {kinds[kind]}" for name, kind in said["asked"]
    )
    for row in rows:
        told = attributes(row)
        assert (row["pid"], row["comm"], row["uid"]) == (world.pid, "python", 0)
        if told["type"] == "getaddrinfo":
            assert (told["name"], row["result"], told["rcode"]) == ("localhost", 0, "NOERROR")
            continue
        assert row["detail"] == f"{told['name']} {told['type']}"
        word = re.match("[a-z]+", told["name"])[0]
        wanted = {
            "nxdomain": (3, "NXDOMAIN", ""), "silent": (-errno.ETIMEDOUT, "TIMEOUT", None),
        }.get(word, (0, "NOERROR", "10.0.0.7" if told["type"] == "A" else "::7"))  # fmt: skip
        assert (row["result"], told["rcode"], told.get("addresses")) == wanted
        if word == "silent":
            assert row["latency_ns"] == GIVE_UP_NS
        else:
            assert 1_000 < row["latency_ns"] < took_s * 1e9
        assert told["server"] in (("[::1]:53",) if word == "aaaa" else ("127.0.0.1:53", "10.53.0.1:53"))
        assert int(told["client"].rpartition(":")[2]) > 0
    called = [row for row in rows if attributes(row)["name"].startswith("call")]
    assert Counter(attributes(row)["type"] for row in called) == {"A": CALLS, "AAAA": CALLS}
    assert trace.maps["@"][str(world.pid)] == CALLS + LOCAL


def test_a_live_gadget_sees_only_what_it_wants(world, service, workloads):
    collector = Dns(workloads, wanted=Wanted(failed=True, comm="python"))
    collector.start(live=True)
    try:
        world.go()
        rows = []
        while sum(row["result"] == 3 for row in rows) < NXDOMAIN:
            records = collector.poll(0.2)
            collector.observe(records)
            rows += collector.rows(records).to_pylist()
    finally:
        collector.close()
    assert {row["result"] for row in rows if row["service"] == service} == {3}


@pytest.mark.parametrize(("named", "error"), [(("dns",), ""), ((), "a packet socket needs CAP_NET_RAW; run as root")])
def test_the_agent_that_is_told_to_collect_it_keeps_the_right_it_needs(named, error):
    code = f"""
from collectors import privileges
privileges.drop(privileges.kept({named}).values())
from collectors.trace.dns import Dns
from streams.schema.errors import KernelError
collector = Dns()
try:
    collector.start()
    print(len(collector._sockets._open))
except KernelError as error:
    print(error)
collector.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    # Without CAP_SYS_ADMIN it sees its own network namespace.
    assert done.stdout == (error or "1") + "\n"
