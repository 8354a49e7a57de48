"""tcpconnect and tcpaccept: every one of a prime number, IPv4 and IPv6, with result and waiting time."""

import errno
from collections import Counter

from collectors.trace.tcpaccept import TcpAccept
from collectors.trace.tcpconnect import TcpConnect
from tests.kernel.known import Bpftrace, Known, Taken, started, until

V4, V6, REFUSED4, REFUSED6 = 101, 97, 7, 6
WAIT_MS, NONE_LEFT = 100, 3
SYN_SENT, ESTABLISHED, CLOSE = 2, 1, 7
COMMON = {"uid": 0, "comm": "perfknown"}


def test_every_connect_and_accept_is_told_and_bpftrace_agrees(known, service, workloads):
    second = f"""
        tracepoint:sock:inet_sock_set_state
          /args->newstate == {SYN_SENT} && args->protocol == 6 && comm == "perfknown"/ {{ @open[args->skaddr] = 1; }}
        tracepoint:sock:inet_sock_set_state /args->oldstate == {SYN_SENT} && @open[args->skaddr] == 1/ {{
            @result[args->newstate, args->family] = count();
            delete(@open[args->skaddr]);
        }}
    """
    connects, accepts = Taken(), Taken()
    with started(TcpConnect(workloads), TcpAccept(workloads)) as (one, other), Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(known, "tcp", V4, V6, REFUSED4, REFUSED6, WAIT_MS, NONE_LEFT, service=service) as program:
            program.go()
            until(lambda: accepts.take(other) and connects.take(one).of(service=service))
            said = program.answer()
            connects.take(one)
            accepts.take(other)
    assert connects.lost == accepts.lost == 0
    opened, taken = connects.of(service=service), accepts.of(service=service)
    for row in (*opened, *taken):
        assert row.items() >= (COMMON | {"pid": program.pid}).items()
        assert row["ppid"] > 0
        assert row["version"]  # the build id of the program

    ok, refused = 0, -errno.ECONNREFUSED
    assert Counter((row["detail"], row["result"]) for row in opened) == {
        (f"127.0.0.1:{said['port4']}", ok): V4,
        (f"[::1]:{said['port6']}", ok): V6,
        (f"127.0.0.1:{said['closed4']}", refused): REFUSED4,
        (f"[::1]:{said['closed6']}", refused): REFUSED6,
    }
    assert all(1_000 < row["latency_ns"] < WAIT_MS * 1_000_000 for row in opened)
    sources = [dict(row["attributes"])["source"] for row in opened]
    assert all(source.startswith(("127.0.0.1:", "[::1]:")) and not source.endswith(":0") for source in sources)
    assert trace.maps["@result"] == {f"{ESTABLISHED},2": V4, f"{ESTABLISHED},10": V6, f"{CLOSE},2": REFUSED4} | {
        f"{CLOSE},10": REFUSED6
    }

    good = [row for row in taken if row["result"] == 0]
    # Who connected is who was accepted: the same pairs of addresses from both ends.
    assert Counter(row["detail"] for row in good) == Counter(
        dict(row["attributes"])["source"] for row in opened if row["result"] == 0
    )
    assert Counter(dict(row["attributes"])["local"] for row in good) == {
        f"127.0.0.1:{said['port4']}": V4,
        f"[::1]:{said['port6']}": V6,
    }
    assert all(WAIT_MS * 1_000_000 <= row["latency_ns"] <= said["took_ns"] for row in good)
    assert [
        (row["result"], row["detail"], dict(row["attributes"])["local"]) for row in taken if row["result"]
    ] == NONE_LEFT * [(-errno.EMFILE, "0.0.0.0:0", f"127.0.0.1:{said['port4']}")]
