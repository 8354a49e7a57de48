"""How much of what was sampled can be read: the arithmetic, what is said of a binary, and the table."""

import pytest

from dashboards import coverage, coverage_command
from tests.unit.test_show import printed


def sums(binary, value, unwound=0, named=0, complete=0, own_named=0, lost_inside=0):
    return {"binary": binary, "value": value, "unwound": unwound, "named": named, "complete": complete,
            "own_named": own_named, "lost_inside": lost_inside}  # fmt: skip


def test_shares_are_of_the_whole_and_of_the_binarys_own():
    rows = coverage.shares(
        [sums("/app", 700, 350, 490, 210, 490, 350), sums("/lib", 300, 300, 0, 0, 300)], "nanoseconds"
    )
    assert rows[0] == {
        "binary": "/app", "value": 700, "share": 0.7, "unwound_share": 0.5, "named_share": 0.7, "complete_share": 0.3,
        "note": "no frame pointers", "unit": "nanoseconds",
    }  # fmt: skip
    assert (rows[1]["share"], rows[1]["unwound_share"], rows[1]["named_share"]) == (0.3, 1.0, 0.0)
    assert coverage.complete(rows) == pytest.approx(0.21)


def test_nothing_and_a_sum_of_nothing_divide_by_nothing():
    assert coverage.shares([], "") == []
    (row,) = coverage.shares([sums("/app", 0)], "nanoseconds")
    assert (row["share"], row["unwound_share"], coverage.complete([row])) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("binary", "part", "said"),
    [
        ("/app", {"unwound": 1, "named": 1, "own_named": 1}, ""),
        ("/app", {"unwound": 0.5, "named": 0.5, "own_named": 0.5, "lost_inside": 0.49}, ""),
        ("/app", {"unwound": 0.5, "named": 1, "own_named": 1, "lost_inside": 0.5}, "no frame pointers"),
        ("/app", {"unwound": 1, "named": 0, "own_named": 0.49}, "no symbols"),
        ("/app", {"own_named": 0.49, "lost_inside": 0.5}, "neither symbols nor frame pointers"),
        ("/app", {"named": 1, "own_named": 1, "lost_inside": 0.1}, "called from code without frame pointers"),
        ("/app", {"unwound": 1, "own_named": 1}, "called from code without symbols"),
        (coverage.MANAGED, {"unwound": 1}, "a JIT without a map (perf-PID.map)"),
        (coverage.MANAGED, {"named": 1, "own_named": 1, "lost_inside": 1}, "no frame pointers"),
        ("[exited]", {}, "ended before its names were read"),
        ("[stack not stored]", {}, ""),
    ],
)  # fmt: skip
def test_a_row_says_what_its_binary_lacks(binary, part, said):
    whole = dict.fromkeys(("unwound", "named", "own_named", "lost_inside"), 0.0) | part
    assert coverage.note(binary, whole) == said


def test_the_table_says_what_all_of_it_is():
    rows = coverage.shares([sums("/app", 3_000_000, 3_000_000, 3_000_000, 3_000_000, 3_000_000),
                            sums("/old", 1_000_000, lost_inside=1_000_000)], "nanoseconds")  # fmt: skip
    out, err = printed(coverage_command.write, rows, 20)
    assert err == ""
    assert out == (
        "binary  value      %  unwound   named    both  note\n"
        "/app     3 ms  75.0%   100.0%  100.0%  100.0%\n"
        "/old     1 ms  25.0%     0.0%    0.0%    0.0%  neither symbols nor frame pointers\n"
        "75.0% of all is unwound and named\n"
    )
    out, _err = printed(coverage_command.write, rows, 1)
    assert out.splitlines()[-1] == "75.0% of all is unwound and named; these 1 of 2 binaries hold 75.0% of all"


def test_a_narrow_terminal_shows_the_end_of_a_path():
    paths = ["/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/srv/app"]
    rows = coverage.shares([sums(path, 1) for path in paths], "nanoseconds")
    lines = [{"binary": row["binary"], "value": "1 ns", "note": "x" * 30} for row in rows]
    shown = [line["binary"] for line in coverage_command.fitted(lines, 68)]
    assert shown == ["…_64-linux-gnu/libcrypto.so.3", "/srv/app"]
    assert len(shown[0]) + 2 + len("value") + 2 + 30 == 68
    least = next(line["binary"] for line in coverage_command.fitted(lines, 10))
    assert (least, len(least)) == (f"…{paths[0][-19:]}", coverage_command.LEAST)
    assert [line["binary"] for line in coverage_command.fitted(lines, 200)] == paths
    assert coverage_command.fitted([], 80) == []
