"""``profile compare`` on a real store: exact shares, calm on halves, a slower one is seen; page, exit code."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from dashboards import comparing, selection
from dashboards.store import connect
from runtime.settings import ClickHouseSettings
from sinks.migrate import migrate
from tests.integration import known_rows
from tests.integration.known_rows import MS
from tests.integration.test_reading import known, page_data, run  # noqa: F401 - fixtures
from tests.unit.test_regression import FUNCTIONS, mixes_of, shares_of
from tests.unit.test_regression import run as counts_of

pytestmark = pytest.mark.services

V10, V11 = 'shop{version="v1.0"}', 'shop{version="v1.1"}'
MINUTES = 10


@pytest.fixture
def compare(run, known):  # noqa: F811
    """Call ``profile compare``; (rows by function, standard error, exit code)."""

    def call(baseline, comparison, *arguments, dsn=known.dsn, times=known.times):
        code, out, err = run(
            "profile", "compare", "--baseline", baseline, "--comparison", comparison, *times, "--dsn", dsn,
            "--format", "json", "-n", 100_000, *arguments,
        )  # fmt: skip
        return {row["function"]: row for row in json.loads(out)} if out else {}, err, code

    return call


@pytest.fixture(scope="module")
def sampled(store):
    """20,000 samples of each of two versions on the same nodes; function 0 goes from 5 % to 7 %. (dsn, start)."""
    name = "compare_sampled"
    store.post(f"CREATE DATABASE {name}")
    dsn = f"{store.dsn}/{name}"
    migrate(ClickHouseSettings(dsn=dsn))
    start = known_rows.start_of_data() - timedelta(minutes=2 * MINUTES)
    random = np.random.default_rng(23)
    before = mixes_of(random, shares_of(), 1000.0)
    after = before * 0.93 / 0.95
    after[:, 0] = before[:, 0] * 1.4
    insert = known_rows._inserter(store, name)
    insert("stacks", [
        {"stack_id": i + 1, "functions": ["main", f"f{i}"], "files": ["", ""], "lines": [0, 0],
         "last_seen": int(start.timestamp())} for i in range(FUNCTIONS)
    ])  # fmt: skip
    for version, mixes in (("v1", before), ("v2", after / after.sum(axis=1)[:, None])):
        cells = counts_of(random, mixes, 20_000, 1000.0, MINUTES)
        insert("samples", [
            {"time": f"{start + timedelta(minutes=cell % MINUTES):%Y-%m-%dT%H:%M:%S}Z", "cluster": "c1",
             "node": f"n{cell // MINUTES}", "namespace": "", "pod": "", "container": "", "service": "app",
             "version": version, "type": "cpu", "unit": "nanoseconds", "stack_id": f + 1,
             "value": int(cells[cell, f]) * 20 * MS, "period": 20 * MS}
            for cell, f in np.argwhere(cells).tolist()
        ])  # fmt: skip
    yield dsn, start
    store.post(f"DROP DATABASE {name} SYNC")


HOURS = 26


@pytest.fixture(scope="module")
def days(store):
    """26 hours, ended some minutes ago; v2 is v1 with f0 at 7 % instead of 5 %. (dsn, start of the first hour).

    v3 ran on other nodes, v4 in the last three hours only.
    """
    name = "compare_days"
    store.post(f"CREATE DATABASE {name}")
    dsn = f"{store.dsn}/{name}"
    migrate(ClickHouseSettings(dsn=dsn))
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS)
    random = np.random.default_rng(29)
    before = mixes_of(random, shares_of(), 1000.0)
    after = before * 0.93 / 0.95
    after[:, 0] = before[:, 0] * 1.4
    insert = known_rows._inserter(store, name)
    insert("stacks", [
        {"stack_id": i + 1, "functions": ["main", f"f{i}"], "files": ["", ""], "lines": [0, 0],
         "last_seen": int(start.timestamp())} for i in range(FUNCTIONS)
    ])  # fmt: skip
    for version, mixes, samples, hours in (
        ("v1", before, 20_000, HOURS), ("v2", after / after.sum(axis=1)[:, None], 20_000, HOURS),
        ("v3", before, 1_000, HOURS), ("v4", before, 1_000, 3),
    ):  # fmt: skip
        cells = counts_of(random, mixes, samples, 1000.0, hours)
        insert("samples", [
            {"time": f"{start + timedelta(hours=HOURS - hours + cell % hours, minutes=17):%Y-%m-%dT%H:%M:%S}Z",
             "cluster": "c1", "node": f"{'m' if version == 'v3' else 'n'}{cell // hours}", "namespace": "", "pod": "p",
             "container": "", "service": "app", "version": version, "type": "cpu", "unit": "nanoseconds",
             "stack_id": f + 1, "value": int(cells[cell, f]) * 20 * MS, "period": 20 * MS}
            for cell, f in np.argwhere(cells).tolist()
        ])  # fmt: skip
    yield dsn, start
    store.post(f"DROP DATABASE {name} SYNC")


def test_a_long_range_has_the_same_sums_and_verdicts_from_the_rollup(compare, days):
    dsn, start = days
    ends = start + timedelta(minutes=10), start + timedelta(hours=HOURS - 1, minutes=50)
    times = ("--from", ends[0].isoformat(), "--to", ends[1].isoformat())

    def asked(more):
        sides = [f'app{{version="{version}"{more}}}' for version in ("v1", "v2")]
        selections = tuple(selection.make(side, start=times[1], end=times[3]) for side in sides)
        rows, err, code = compare(*sides, dsn=dsn, times=times)
        assert (err, code) == ("", 0)
        return comparing.clusters(connect(dsn), selections)[0], rows

    where, rows = asked("")
    assert where == "hours"
    where, wanted = asked(', node=~".+"')
    assert where == "samples"
    assert set(rows) == set(wanted)
    for name, row in rows.items():
        for key in ("baseline_self", "comparison_self", "baseline_total", "comparison_total", "self_points"):
            expected = wanted[name][key]
            assert (name, key, row[key]) == (name, key, pytest.approx(expected) if key == "self_points" else expected)
        for key in ("self_points_low", "self_points_high"):
            assert row[key] == pytest.approx(wanted[name][key], abs=0.5)
        # Hours are fewer clusters than minutes: for a rare function they may be too few to say anything.
        verdicts = {row["verdict"], wanted[name]["verdict"]}
        assert len(verdicts) == 1 or verdicts == {"no finding", "too few samples"}
    assert sum(row["baseline_self"] for row in rows.values()) == pytest.approx(20_000 * 20 * MS, rel=0.01)
    assert [name for name, row in rows.items() if row["by"]] == ["f0"]


def test_which_comparisons_read_the_rollup(days):
    dsn, start = days
    store = connect(dsn)

    def read(*versions, more="", hours=float(HOURS)):
        ends = {"start": start.isoformat(), "end": (start + timedelta(hours=hours)).isoformat()}
        return comparing.clusters(
            store, tuple(selection.make(f'app{{version="{version}"{more}}}', **ends) for version in versions)
        )[0]

    assert read("v1", "v2") == "hours"
    assert read("v1", "v2", hours=20) == "hours"
    assert read("v1", "v2", hours=19.5) == "samples"
    assert read("v1", "v2", more=', pod="p"') == "samples"
    assert read("v1", "v3") == "samples"  # on other nodes
    assert read("v1", "v4") == "samples"  # three hours of data
    assert read("v1", "none") == "samples"


def test_shares_are_exact_and_new_and_removed_functions_are_there(compare, known):  # noqa: F811
    rows, _err, code = compare(V10, V11)
    assert code == 0
    old, new = known.top(service="shop", version="v1.0"), known.top(service="shop", version="v1.1")
    wholes = known.sum(service="shop", version="v1.0"), known.sum(service="shop", version="v1.1")
    assert set(rows) == set(old) | set(new)
    for name, row in rows.items():
        for kind, at in (("self", 0), ("total", 1)):
            sums = old.get(name, (0, 0))[at], new.get(name, (0, 0))[at]
            assert (row[f"baseline_{kind}"], row[f"comparison_{kind}"]) == sums
            shares = sums[0] / wholes[0], sums[1] / wholes[1]
            assert row[f"{kind}_points"] == pytest.approx(100 * (shares[1] - shares[0]))
            assert row[f"{kind}_points_low"] <= row[f"{kind}_points"] <= row[f"{kind}_points_high"]
    assert {name: rows[name]["verdict"] for name in ("alpha", "beta", "walk", "main", "tiny_1000")} == {
        "alpha": "removed", "beta": "regressed", "walk": "new", "main": "no finding", "tiny_1000": "too few samples",
    }  # fmt: skip
    assert list(rows)[:3] == ["alpha", "walk", "beta"]  # the largest differences first


def test_five_to_seven_percent_is_found_and_nothing_else(compare, sampled):
    dsn, start = sampled
    times = ("--from", start.isoformat(), "--to", (start + timedelta(minutes=MINUTES)).isoformat())
    rows, err, code = compare('app{version="v1"}', 'app{version="v2"}', dsn=dsn, times=times)
    assert (err, code) == ("", 0)
    assert [(name, row["by"]) for name, row in rows.items() if row["verdict"] == "regressed"] == [("f0", "self")]
    assert rows["f0"]["self_points"] == pytest.approx(2, abs=0.8)
    assert not [name for name, row in rows.items() if row["verdict"] in ("new", "removed")]
    code = compare('app{version="v1"}', 'app{version="v2"}', "--fail-on-regression", dsn=dsn, times=times)[2]
    assert code == 1
    code = compare('app{version="v2"}', 'app{version="v1"}', "--fail-on-regression", dsn=dsn, times=times)[2]
    assert code == 0  # faster is no regression


def test_two_halves_of_one_version_by_ranges_of_their_own(compare, sampled):
    dsn, start = sampled
    middle = (start + timedelta(minutes=MINUTES // 2)).isoformat()
    halves = ("--baseline-from", start.isoformat(), "--baseline-to", middle, "--comparison-from", middle,
              "--comparison-to", (start + timedelta(minutes=MINUTES)).isoformat())  # fmt: skip
    rows, _err, code = compare(
        'app{version="v1"}', 'app{version="v1"}', *halves, "--fail-on-regression", dsn=dsn, times=()
    )
    assert code == 0
    assert {row["verdict"] for row in rows.values()} <= {"no finding", "too few samples"}
    assert 9_000 < sum(row["baseline_self"] for row in rows.values()) / (20 * MS) < 11_000


def test_the_cost_of_a_unit_of_load(compare, known):  # noqa: F811
    rows, _err, _code = compare(V10, V11, "--baseline-load", 1000, "--comparison-load", 250)
    beta = rows["beta"]
    assert beta["baseline_self_per_unit"] == beta["baseline_self"] / 1000
    assert beta["comparison_self_per_unit"] == beta["comparison_self"] / 250
    assert beta["self_per_unit_change"] == beta["comparison_self"] / 250 - beta["baseline_self"] / 1000
    assert beta["total_per_unit_change"] == beta["self_per_unit_change"]  # it calls nothing
    assert compare(V10, V11)[0]["beta"]["baseline_self_per_unit"] is None
    assert compare(V10, V11)[0]["beta"]["self_per_unit_change"] is None
    rows, err, _code = compare(V10, "shop", "--load", "syscall:read")
    events = len(known.latencies["syscall", "read", "shop"])
    assert rows["beta"]["baseline_self_per_unit"] == pytest.approx(rows["beta"]["baseline_self"] / events)
    rows, err, _code = compare(V10, V11, "--load", "syscall")  # the known latencies are of v1.0 only
    assert "so no cost is shown" in err


def test_few_different_nodes_are_said_and_one_interval_tests_nothing(compare, known):  # noqa: F811
    _rows, err, _code = compare('shop{node="node-a"}', 'shop{node="node-b"}')
    assert "the sides ran on different nodes (1 and 1)" in err
    one = (known.start + timedelta(seconds=10)).isoformat()
    rows, err, _code = compare(
        'shop{version="v1.0", node="node-a"}', 'shop{version="v1.1", node="node-a"}',
        times=("--from", known.start.isoformat(), "--to", one),
    )  # fmt: skip
    assert "nothing is tested" in err
    assert {row["verdict"] for row in rows.values()} == {"too few samples"}


def test_old_times_come_from_the_hourly_rollup(compare, known):  # noqa: F811
    rows, _err, code = compare(V10, V11, times=("--since", "40d"))
    assert code == 0
    assert rows["alpha"]["baseline_self"] == known.top(service="shop", version="v1.0")["alpha"][0]


def test_the_table_and_the_page(run, known, tmp_path):  # noqa: F811
    path = tmp_path / "diff.html"
    code, out, err = run("profile", "compare", "--baseline", V10, "--comparison", V11, *known.times,
                         "--dsn", known.dsn, "-n", 3, "--html", path)  # fmt: skip
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split("  ")[0] == "function"
    assert lines[0].split()[1:7] == ["self", "before", "self", "after", "self", "points"]
    share = known.top(service="shop", version="v1.0")["alpha"][0] / known.sum(service="shop", version="v1.0")
    assert lines[1].split()[:4] == ["alpha", f"{share:.2%}", "0.00%", f"{-100 * share:.2f}"]
    assert lines[1].endswith("removed")
    assert "1 regressed" in lines[4]
    assert str(path) in err
    data = page_data(path)
    names = [data["names"][label] for label in data["label"]]
    wholes = known.sum(service="shop", version="v1.0"), known.sum(service="shop", version="v1.1")
    assert (data["before"][0], data["after"][0]) == (1, 1)
    at = names.index("alpha")
    alpha = known.top(service="shop", version="v1.0")["alpha"][0] / wholes[0]
    assert (data["before"][at], data["after"][at]) == (pytest.approx(alpha, abs=1e-8), 0)
    beta = known.top(service="shop", version="v1.1")["beta"][0] / wholes[1]
    assert data["after"][names.index("beta")] == pytest.approx(beta, abs=1e-8)


def test_what_cannot_be_compared_is_one_line(compare):
    for arguments, code, message in (
        (("shpo", V11), 1, 'nothing recorded for cpu{service="shpo"}'),
        ((V10, 'shop{version="v9"}'), 1, "in that time there is: "),
    ):
        rows, err, found = compare(*arguments)
        assert (rows, found) == ({}, code)
        assert message in err
        assert err.count("\n") == 1
    _rows, err, found = compare("shop{version=1}", V11)
    assert found == 2
    assert "--baseline: expected a value in quotes, at character 14:\n  shop{version=1}\n               ^" in err
