"""tcp, tcpretrans, tcpdrop, tcprtt: known numbers of each, over loopback and over a wire that the test cuts."""

import errno
import os
import socket
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from collectors.profile.tcprtt import TcpRtt
from collectors.trace.tcp import Tcp
from collectors.trace.tcpdrop import TcpDrop
from collectors.trace.tcpretrans import TcpRetransmit
from collectors.wanted import Wanted
from deploy.broker import free_port
from streams.schema.histogram import quantile
from tests.kernel.known import Bpftrace, Known, Taken, started, until
from tests.kernel.wire import ACK, RIGHT, SYN, Wire, alone

PROGRAM = Path(__file__).parent / "programs" / "tcplife.py"
WHOLE, CUT, REFUSED = 101, 23, 13
CLOSE, LISTEN, SYN_SENT = 7, 10, 2


def attributes(row):
    return dict(row["attributes"])


def test_each_connections_life_is_told_with_its_bytes_and_bpftrace_agrees(service, workloads):
    port = free_port()
    second = f"""
        tracepoint:sock:inet_sock_set_state
          /args->newstate == {CLOSE} && args->oldstate != {LISTEN} && args->protocol == 6
           && (args->sport == {port} || args->dport == {port})/
        {{ @[args->oldstate == {SYN_SENT}] = count(); }}
    """
    found = Taken()
    with (
        Known(sys.executable, PROGRAM, port, WHOLE, CUT, REFUSED, service=service) as program,
        started(Tcp(workloads)) as collector,
        Bpftrace(second) as trace,
    ):
        said = program.run()
        until(lambda: len(found.take(collector).of(pid=program.pid)) >= 4 * (WHOLE + CUT) + REFUSED)
    assert found.lost == 0
    mine = found.of(service=service)
    by = {
        each: [row for row in mine if attributes(row)["operation"] == each] for each in ("connect", "accept", "close")
    }
    assert {name: len(rows) for name, rows in by.items()} == {
        "connect": WHOLE + CUT + REFUSED, "accept": WHOLE + CUT, "close": 2 * (WHOLE + CUT)
    }  # fmt: skip
    here, closed = f"127.0.0.1:{port}", f"127.0.0.1:{said['closed']}"
    assert Counter((attributes(row)["peer"], row["result"]) for row in by["connect"]) == {
        (here, 0): WHOLE + CUT, (closed, -errno.ECONNREFUSED): REFUSED
    }  # fmt: skip
    ends = {(attributes(row)["local"], attributes(row)["peer"]): row for row in by["close"]}
    for number, name in enumerate(said["names"]):
        mine, other = ends[name, here], ends[here, name]
        sent = 7 * number + 1
        got = {key: int(attributes(mine)[key]) for key in ("bytes_sent", "bytes_received", "retransmits")}
        assert got == {"bytes_sent": sent, "bytes_received": 13, "retransmits": 0}
        assert (attributes(other)["bytes_sent"], attributes(other)["bytes_received"]) == ("13", str(sent))
        cut = number >= WHOLE
        assert (mine["result"], other["result"]) == (-errno.ECONNRESET if cut else 0, 0)
        assert mine["detail"] == f"close {here} sent {sent} received 13"
        assert attributes(mine)["last_state"] == ("ESTABLISHED" if cut else "FIN_WAIT2")
        assert 0 < mine["latency_ns"] <= said["took_ns"]
        assert "began" not in attributes(mine)
    assert trace.maps["@"] == {"0": 2 * (WHOLE + CUT)}


def connected(wire, port, count):
    server = wire.right(lambda: socket.create_server((RIGHT, port), backlog=128))
    clients = [wire.left(lambda: socket.socket()) for _ in range(count)]
    for each in clients:
        each.setblocking(False)
        each.connect_ex((RIGHT, port))
    return server, clients, [server.accept()[0] for _ in clients]


def test_what_is_sent_again_is_told_with_whose_it_is(workloads):
    port, lost, opening = free_port(), 29, 3  # an earlier run's orphans may still send their ends again
    refused = set()

    def lose(segment):
        if segment.flags & SYN and segment.flags & ACK and len(refused) < opening:
            refused.add(segment.target)
            return True
        return segment.size > 0

    second = f"""
        tracepoint:tcp:tcp_retransmit_skb /args->dport == {port}/ {{ @[args->state] = count(); }}
    """
    found, elsewhere, ours = Taken(), Taken(), Taken()
    collectors = [TcpRetransmit(workloads, wanted=Wanted(pid=pid)) for pid in (None, 1, os.getpid())]
    with Wire(lose) as wire, started(*collectors) as (collector, others, own), Bpftrace(second) as trace:
        server, clients, taken = connected(wire, port, lost + opening)
        # A connection whose opening was lost waits seconds before it sends again: those get no data.
        sending = [each for each in clients if each.getsockname()[1] not in refused]
        for number, each in enumerate(sending):
            each.setblocking(True)
            each.sendall(bytes(number + 1))
        for each in taken:
            if each.getpeername()[1] not in refused:
                assert each.recv(100)
        again = {identity: copies - 1 for identity, copies in wire.copies.items() if copies > 1}
        until(lambda: len([r for r in found.take(collector).rows if f":{port}" in str(r)]) >= sum(again.values()))
        elsewhere.take(others)
        ours.take(own)
        for each in (server, *clients, *taken):
            each.close()
    assert not [row for row in elsewhere.rows if row["pid"] != 1]
    assert {row["pid"] for row in ours.rows} == {os.getpid()}
    assert len(ours.rows) == sum(again.values())
    rows = [row for row in found.rows if f":{port}" in row["detail"] or attributes(row)["local"].endswith(f":{port}")]
    assert found.lost == 0
    wanted = Counter()
    for (source, target, _sequence, flags, size), copies in again.items():
        state = ("NEW_SYN_RECV" if source == port else "SYN_SENT") if flags & SYN else "ESTABLISHED"
        assert size > 0 or flags & SYN
        wanted[source, target, state] += copies
    assert sum(n for (_, _, state), n in wanted.items() if state == "ESTABLISHED") == lost
    assert {source for source, _, state in wanted if state == "NEW_SYN_RECV"} == {port}

    def port_of(text):
        return int(text.rpartition(":")[2])

    told = Counter((port_of(attributes(r)["local"]), port_of(r["detail"]), attributes(r)["state"]) for r in rows)
    assert told == wanted
    assert {row["pid"] for row in rows} == {os.getpid()}
    assert {row["result"] for row in rows} == {0}
    states = Counter()
    for (source, _target, state), copies in wanted.items():
        if source != port:
            states["1" if state == "ESTABLISHED" else "2"] += copies
    assert trace.maps["@"] == states


def test_a_dropped_packet_is_told_with_the_kernels_reason_and_the_kernel_counts_the_same(workloads):
    refused4, refused6, damaged, beyond = 13, 11, 7, 5
    found = Taken()

    def work():
        closed4, closed6 = socket.socket(), socket.socket(socket.AF_INET6)
        closed4.bind(("127.0.0.1", 0))
        closed6.bind(("::1", 0))
        for closed, count in ((closed4, refused4), (closed6, refused6)):
            for _ in range(count):
                with socket.socket(closed.family) as each:
                    assert each.connect_ex(closed.getsockname()) == errno.ECONNREFUSED
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        held, _ = server.accept()
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        pair = client.getsockname()[1], server.getsockname()[1]
        for count, wrong in ((damaged, 1), (beyond, 0)):
            for _ in range(count):
                raw.sendto(segment(*pair, wrong), ("127.0.0.1", 0))
        lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
        names, values = (line for line in lines if line[0] == "Tcp:")
        ports = closed4.getsockname()[1], closed6.getsockname()[1], pair[1]
        for each in (closed4, closed6, server, raw):
            each.close()
        return dict(zip(names, values, strict=True)), ports, held, client

    with started(TcpDrop(workloads)) as collector:
        counters, ports, held, client = alone(work)
        port4, port6, target = ports
        until(lambda: len(to(found.take(collector).rows, *ports)) >= refused4 + refused6 + damaged + beyond)
        held.close()
        client.close()
    rows = to(found.rows, *ports)
    assert found.lost == 0
    told = Counter((attributes(r)["reason"], attributes(r)["destination"], attributes(r)["flags"]) for r in rows)
    old = next(reason for reason, to, flags in told if to == f"127.0.0.1:{target}" and reason != "TCP_CSUM")
    assert told == {
        ("NO_SOCKET", f"127.0.0.1:{port4}", "SYN"): refused4, ("NO_SOCKET", f"[::1]:{port6}", "SYN"): refused6,
        ("TCP_CSUM", f"127.0.0.1:{target}", "ACK"): damaged, (old, f"127.0.0.1:{target}", "ACK"): beyond,
    }  # fmt: skip
    assert old.startswith("TCP_")
    assert int(counters["InCsumErrors"]) == damaged
    assert int(counters["AttemptFails"]) == refused4 + refused6
    # Who holds the socket is known where there is one.
    assert {(row["pid"], attributes(row)["state"]) for row in rows if attributes(row)["reason"] == old} == {
        (os.getpid(), "ESTABLISHED")
    }
    assert all(row["detail"].startswith(attributes(row)["reason"] + " ") for row in rows)


def to(rows, *ports):
    return [row for row in rows if any(attributes(row)["destination"].endswith(f":{port}") for port in ports)]


def segment(source, target, wrong):
    """Return an ACK far outside of any window, with a checksum that is right or off by ``wrong``."""
    head = struct.pack(">HHIIBBHHH", source, target, 1, 1, 5 << 4, ACK, 1000, 0, 0)
    pseudo = socket.inet_aton("127.0.0.1") * 2 + struct.pack(">BBH", 0, 6, len(head))
    total = sum(struct.unpack(f">{len(pseudo + head) // 2}H", pseudo + head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:16] + struct.pack(">H", (~total + wrong) & 0xFFFF) + head[18:]


def test_round_trips_are_those_of_the_wire(workloads):
    port, turns, one_way_s = 7003, 29, 0.01
    with Wire(delay_s=one_way_s) as wire, started(TcpRtt(workloads)) as collector:
        server, (client,), (taken,) = connected(wire, port, 1)
        client.setblocking(True)
        for _ in range(turns):
            client.sendall(b"x")
            assert taken.recv(10) == b"x"
            taken.sendall(b"y")
            assert client.recv(10) == b"y"
        found = Taken().take(collector)
        for each in (server, client, taken):
            each.close()
    assert found.lost == 0
    rows = {row["operation"]: row for row in found.rows if row["operation"] in (f"to :{port}", f"from :{port}")}
    assert {name: row["count"] for name, row in rows.items()} == {f"to :{port}": turns, f"from :{port}": turns}
    for row in rows.values():
        buckets, counts = np.array(row["buckets"], np.uint16), np.array(row["counts"], np.uint64)
        assert 2 * one_way_s * 0.97 <= quantile(buckets, counts, 0.0) / 1e9
        assert quantile(buckets, counts, 0.5) / 1e9 < 2 * one_way_s * 3
        assert row["period"] == 1
