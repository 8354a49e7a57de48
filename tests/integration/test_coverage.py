"""``profile coverage`` on a real store, with stacks of every kind as the collectors write them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from dashboards.coverage import MANAGED
from runtime.settings import ClickHouseSettings
from sinks.migrate import migrate
from tests.integration.known_rows import _inserter
from tests.integration.test_reading import run  # noqa: F401 - fixture

pytestmark = pytest.mark.services

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
MAIN = ("__libc_start_call_main", LIBC)
SHORT = ("[libc.so.6]", LIBC)  # a C library without symbols
KERNEL = (("entry_SYSCALL_64_after_hwframe_[k]", "[kernel]"), ("vfs_read_[k]", "[kernel]"))
STACKS = {  # value: frames root first, (function, file[, line])
    103: (MAIN, ("main", "/srv/app"), ("work", "/srv/app")),
    101: (MAIN, ("main", "/srv/app"), ("[app]", "/srv/app")),
    107: (("work", "/srv/no-frames"),),
    109: (("[unknown]", ""), ("work", "/srv/no-frames")),  # where the register pointed to anything
    113: (SHORT, ("[stripped]", "/srv/stripped"), ("[stripped]", "/srv/stripped")),
    127: (("[bare]", "/srv/bare"),),
    131: (MAIN, ("main", "/srv/app"), ("read", LIBC), *KERNEL),
    137: (SHORT,),
    139: (("ret_from_fork_asm_[k]", "[kernel]"), ("kthread_[k]", "[kernel]")),
    149: (("[kernel]_[k]", "[kernel]"),),
    151: (("start_thread", LIBC), ("void Shop.sell()", "[anon]")),
    157: (("Builtins_JSEntry", "/usr/bin/node"), ("sell", "/srv/shop.js", 7)),
    163: (("start_thread", LIBC), ("[anon]", "[anon]")),
    167: (("[exited]", ""),),
    173: (("[libcall.so.1]", "/usr/lib/libcall.so.1"), ("each", "/srv/called")),
    179: (("runtime.goexit.abi0", "/srv/go"), ("main.main", "/srv/go"), ("__vdso_clock_gettime", "[vdso]")),
    191: (("<module>", "/srv/run.py", 3), ("work", "/srv/run.py", 9)),
    193: (("runtime.morestack", "/srv/go"), ("runtime.newstack", "/srv/go")),
    197: (("sell", "/srv/shop.js", 7), ("[anon]", "[anon]")),
    181: None,  # its stack has not arrived
}
WANTED = {  # value, unwound, named, both
    "/srv/app": (204, 204, 103, 103),
    "/srv/no-frames": (216, 0, 107, 0),
    "/srv/stripped": (113, 113, 0, 0),
    "/srv/bare": (127, 0, 0, 0),
    LIBC: (268, 131, 131, 131),
    "[kernel]": (288, 288, 139, 139),
    MANAGED: (859, 662, 499, 499),
    "/srv/go": (193, 193, 193, 193),
    "[exited]": (167, 0, 0, 0),
    "/srv/called": (173, 0, 0, 0),
    "[vdso]": (179, 179, 179, 179),
    "[stack not stored]": (181, 0, 0, 0),
}
NOTES = {
    "/srv/no-frames": "no frame pointers",
    "/srv/stripped": "no symbols",
    "/srv/bare": "neither symbols nor frame pointers",
    "[exited]": "ended before its names were read",
    "/srv/called": "called from code without frame pointers",
    "[kernel]": "no symbols",
    LIBC: "neither symbols nor frame pointers",
}


@pytest.fixture
def asked(run, store, database):  # noqa: F811
    """``asked(*arguments)`` calls ``profile coverage`` on the stacks above: (standard output, standard error)."""
    dsn = f"{store.dsn}/{database}"
    migrate(ClickHouseSettings(dsn=dsn))
    insert = _inserter(store, database)
    at = datetime.now(UTC) - timedelta(minutes=2)
    insert("stacks", [
        {"stack_id": number, "functions": [f[0] for f in frames], "files": [f[1] for f in frames],
         "lines": [f[2] if len(f) > 2 else 0 for f in frames], "last_seen": int(at.timestamp())}
        for number, frames in STACKS.items() if frames
    ])  # fmt: skip
    insert("samples", [
        {"time": at.isoformat(timespec="milliseconds"), "cluster": "c", "node": "n", "namespace": "", "pod": "",
         "container": "", "service": service, "version": "v", "type": "cpu", "unit": "nanoseconds", "stack_id": number,
         "value": value, "period": 1}
        for number in STACKS for service, value in (("all", number), *([("few", 7)] if number == 103 else []))
    ])  # fmt: skip

    def call(*arguments):
        code, out, err = run("profile", "coverage", *arguments, "--dsn", dsn)
        assert code == 0, err
        return out, err

    return call


@pytest.mark.parametrize("times", [(), ("--since", "40d")])
def test_each_stack_counts_where_it_belongs(asked, times):
    out, err = asked("all", *times, "--format", "json")
    assert err == ""
    rows = json.loads(out)
    assert {
        row["binary"]: tuple(
            round(row["value"] * share)
            for share in (1, row["unwound_share"], row["named_share"], row["complete_share"])
        )
        for row in rows
    } == WANTED
    assert sum(row["value"] for row in rows) == sum(STACKS)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [row["value"] for row in rows] == sorted((row["value"] for row in rows), reverse=True)
    assert {row["binary"]: row["note"] for row in rows if row["note"]} == NOTES
    assert set(rows[0]) == {
        "binary",
        "value",
        "share",
        "unwound_share",
        "named_share",
        "complete_share",
        "note",
        "unit",
    }


def test_the_selection_and_the_table(asked):
    out, _err = asked('few{version="v"}')
    assert [line.split() for line in out.splitlines()] == [
        ["binary", "value", "%", "unwound", "named", "both", "note"],
        ["/srv/app", "7", "ns", "100.0%", "100.0%", "100.0%", "100.0%"],
        ["100.0%", "of", "all", "is", "unwound", "and", "named"],
    ]
    out, _err = asked("-n", "2")
    assert len(out.splitlines()) == 4
    both = sum(row[3] for row in WANTED.values()) + 7
    assert out.splitlines()[-1].startswith(f"{both / (sum(STACKS) + 7):.1%} of all is unwound and named; these 2 of 12")
    out, err = asked("none")
    assert out == ""
    assert 'nothing recorded for cpu{service="none"}' in err
