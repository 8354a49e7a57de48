"""ssl: handshakes and bytes of a program that uses the system's OpenSSL (Debian's python3 does)."""

import errno
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from collectors.trace.ssl import Ssl
from tests.kernel.known import Bpftrace, Known, Taken, started, until

PROGRAM = Path(__file__).parent / "programs" / "tls.py"
PYTHON = "/usr/bin/python3"
WHOLE, REFUSED, BYTES = 31, 7, 1009


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    where = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", where / "key", "-out", where / "certificate", "-days", "2", "-subj", "/CN=localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return where / "certificate", where / "key"


def attributes(row):
    return dict(row["attributes"])


def by_operation(rows, operation):
    return [row for row in rows if attributes(row)["operation"] == operation]


def test_bytes_and_handshakes_are_told_and_bpftrace_agrees(certificate, service, workloads, tmp_path):
    library = next(Path("/usr/lib").glob("*-linux-gnu/libssl.so.3"))
    # The second one's library lies where only that process sees it, as in a container.
    contained = f"{service}-contained"
    inside = f'mount -t tmpfs none {tmp_path} && cp {library} {tmp_path} && LD_LIBRARY_PATH={tmp_path} exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", inside, "sh")
    found = Taken()
    with (
        Known(PYTHON, PROGRAM, WHOLE, REFUSED, BYTES, *certificate, service=service) as program,
        Known(PYTHON, PROGRAM, 3, 0, 101, *certificate, service=contained, prefix=prefix) as other,
    ):
        second = (
            "".join(
                f"uretprobe:{library}:SSL_{name}_ex /pid == {program.pid} && retval == 1/ {{ @{name} = count(); }} "
                for name in ("read", "write")
            )
            + f"uprobe:{library}:SSL_do_handshake /pid == {program.pid}/ {{ @shakes = count(); }}"
        )
        with started(Ssl(workloads)) as collector, Bpftrace(second) as trace:
            program.run()
            other.run()
            wanted = 2 * (WHOLE + REFUSED + 3)
            until(lambda: len(by_operation(of(found.take(collector), program, other), "handshake")) >= wanted)
            found.take(collector)
    assert found.lost == 0
    mine = found.of(service=service)
    shakes = by_operation(mine, "handshake")
    assert Counter(row["result"] for row in shakes) == {0: 2 * WHOLE, -errno.EPROTO: 2 * REFUSED}
    for row in mine:
        assert (row["pid"], row["comm"], row["uid"]) == (program.pid, "python3", 0)
        assert row["latency_ns"] > 1_000
    moved = {name: by_operation(mine, name) for name in ("read", "write")}
    count = {name: len([row for row in rows if "ended" not in attributes(row)]) for name, rows in moved.items()}
    total = {name: sum(int(attributes(row)["bytes"]) for row in rows) for name, rows in moved.items()}
    assert total == {"read": 3 * BYTES * WHOLE, "write": 3 * BYTES * WHOLE}
    assert count["write"] == 2 * WHOLE
    assert len([row for row in moved["read"] if "ended" in attributes(row)]) == WHOLE  # each stream's end, once
    assert {name: trace.maps[f"@{name}"] for name in count} == count
    assert trace.maps["@shakes"] >= 2 * (WHOLE + REFUSED)
    assert {row["detail"] for row in moved["write"]} == {f"write {BYTES} bytes", f"write {2 * BYTES} bytes"}
    hidden = found.of(service=contained)
    assert Counter(row["detail"] for row in by_operation(hidden, "write")) == {
        "write 101 bytes": 3,
        "write 202 bytes": 3,
    }
    assert {row["pid"] for row in hidden} == {other.pid}


def of(found, *programs):
    return [row for row in found.rows if row["pid"] in {each.pid for each in programs}]
