"""capabilities: every check of a process, granted and refused, as bpftrace counts them."""

import errno
from collections import Counter

from collectors.trace.capabilities import Capabilities
from collectors.wanted import Wanted
from tests.kernel.known import Bpftrace, Known, Taken, started

GRANTED, REFUSED = 211, 499
SYS_CHROOT = 18


def test_every_check_is_counted_and_bpftrace_agrees(gadgets, service, workloads):
    second = """
        tracepoint:capability:cap_capable /comm == "perfgadgets"/ { @[args->cap, args->ret] = count(); }
    """
    taken = Taken()
    with started(Capabilities(workloads)) as collector, Bpftrace(second) as trace:  # noqa: SIM117 - bpftrace ends before its maps are read
        with Known(gadgets, "capable", GRANTED, REFUSED, service=service) as program:
            program.go()
            taken.take(collector)
            program.answer()
            taken.take(collector)
    assert taken.lost == 0
    mine = taken.of(pid=program.pid, kind="capabilities")
    assert {(row["service"], row["comm"]) for row in mine} == {(service, "perfgadgets")}
    chroots, all_checks = Counter(), Counter()
    for row in taken.of(comm="perfgadgets"):
        told = dict(row["attributes"])
        all_checks[row["result"]] += int(told["checks"])
        if row["detail"] == "CAP_SYS_CHROOT":
            chroots[row["uid"], row["result"], told["user_namespace"]] += int(told["checks"])
    assert chroots == {(0, 0, "initial"): GRANTED, (65534, -errno.EPERM, "initial"): REFUSED}
    seen = Counter()
    for key, count in trace.maps["@"].items():
        seen[int(key.split(",")[1])] += count
    assert trace.maps["@"][f"{SYS_CHROOT},0"] == GRANTED
    assert trace.maps["@"][f"{SYS_CHROOT},{-errno.EPERM}"] == REFUSED
    # Before its name was what bpftrace looks for, it was asked for others at its exec.
    assert all(all_checks[result] >= seen[result] for result in (0, -errno.EPERM))
    assert sum(batch.events for batch in taken.batches) >= GRANTED + REFUSED


def test_only_the_refused_ones_of_a_user(gadgets, service, workloads):
    wanted = Wanted(uid=65534, comm="perfgadgets", failed=True)
    with (
        started(Capabilities(workloads, wanted=wanted)) as collector,
        Known(gadgets, "capable", GRANTED, REFUSED, service=service) as program,
    ):
        program.run()
        taken = Taken().take(collector)
    assert {(row["pid"], row["uid"], row["result"]) for row in taken.rows} == {(program.pid, 65534, -errno.EPERM)}
    told = {row["detail"]: int(dict(row["attributes"])["checks"]) for row in taken.rows}
    assert told["CAP_SYS_CHROOT"] == REFUSED
