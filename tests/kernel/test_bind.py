"""bind: every one of a prime number, IPv4 and IPv6, TCP and UDP, with the address and the result."""

import errno
from collections import Counter

from collectors.trace.bind import Bind
from tests.kernel.known import Bpftrace, Known, Taken, started

TCP4, UDP6, ANY, USED, ELSEWHERE = 53, 23, 11, 13, 7
UNIX, NOTHING = 1, 1


def test_every_bind_is_told_and_bpftrace_agrees(gadgets, service, workloads):
    second = """
        tracepoint:syscalls:sys_exit_bind /comm == "perfgadgets"/ { @[args->ret] = count(); }
    """
    with started(Bind(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(gadgets, "bind", TCP4, UDP6, ANY, USED, ELSEWHERE, service=service) as program:
            said = program.run()
            taken = Taken().take(collector)
    assert taken.lost == 0
    mine = taken.of(pid=program.pid, kind="bind")
    assert {(row["service"], row["comm"], row["uid"]) for row in mine} == {(service, "perfgadgets", 0)}
    assert all(100 < row["latency_ns"] < 1_000_000_000 for row in mine)
    attributes = [dict(row["attributes"]) for row in mine]
    addresses = [row["detail"].rpartition(":")[0] for row in mine]
    told = zip(addresses, attributes, [row["result"] for row in mine], strict=True)
    assert Counter((at, of.get("protocol"), of.get("asked_port"), result) for at, of, result in told) == {
        ("127.0.0.1", "tcp", "0", 0): TCP4,
        ("[::1]", "udp", "0", 0): UDP6,
        ("0.0.0.0", "udp", "0", 0): ANY,
        ("127.0.0.1", "tcp", None, -errno.EADDRINUSE): USED,
        ("192.0.2.7", "tcp", None, -errno.EADDRNOTAVAIL): ELSEWHERE,
        ("192.0.2.7", None, None, -errno.EBADF): NOTHING,
    }
    assert mine[0]["detail"] == f"127.0.0.1:{said['port']}"
    assert {row["detail"] for row in mine if row["result"] == -errno.EADDRINUSE} == {mine[0]["detail"]}
    assert [row["detail"] for row in mine if row["detail"].startswith("[")] == [
        f"[::1]:{said[f'udp{number}']}" for number in range(UDP6)
    ]
    assert all(not row["detail"].endswith(":0") for row in mine)
    assert trace.maps["@"] == {
        "0": TCP4 + UDP6 + ANY + UNIX,
        str(-errno.EADDRINUSE): USED,
        str(-errno.EADDRNOTAVAIL): ELSEWHERE,
        str(-errno.EBADF): NOTHING,
    }
