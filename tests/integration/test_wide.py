"""Long ranges read whole hours from the rollup, and nothing but speed changes."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from dashboards import queries, reading, selection
from runtime.settings import ClickHouseSettings
from sinks.migrate import migrate
from tests.integration.known_rows import _inserter
from tests.integration.test_reading import page_data, run  # noqa: F401 - fixtures

pytestmark = pytest.mark.services


@pytest.fixture
def hours(store, database):
    """Nine hours of samples, every one of another value, on both sides of each hour; (dsn, first hour, rows)."""
    dsn = f"{store.dsn}/{database}"
    migrate(ClickHouseSettings(dsn=dsn))
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=9)
    insert = _inserter(store, database)
    insert("stacks", [{"stack_id": i, "functions": ["main", f"f{i}"], "files": ["", ""], "lines": [0, 0],
                       "last_seen": int(first.timestamp())} for i in (1, 2)])  # fmt: skip
    rows = [(first + timedelta(hours=hour, milliseconds=ms), 1 + (hour + ms) % 2, 3 ** hour + ms)
            for hour in range(9) for ms in (0, 1, 1_800_000, 3_599_999)]  # fmt: skip
    insert("samples", [{"time": at.isoformat(timespec="milliseconds"), "cluster": "c", "node": "n", "namespace": "",
                        "pod": "", "container": "", "service": "app", "version": "v", "type": "cpu", "unit": "count",
                        "stack_id": stack, "value": value, "period": 1} for at, stack, value in rows])  # fmt: skip
    return dsn, first, rows


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 9),
        (0.25, 8.75),
        (1, 5),
        (1 + 1 / 3_600_000, 5 + 1 / 3_600_000),
        (2.5, 6),
        (2 - 1 / 3_600_000, 5.5),
        (4.1, 7.1),
    ],
)
def test_sums_do_not_depend_on_where_they_are_read(run, hours, start, end):  # noqa: F811
    dsn, first, rows = hours
    begin, until = first + timedelta(hours=start), first + timedelta(hours=end)
    wanted = {}
    for at, stack, value in rows:
        if begin <= at < until:
            wanted[f"f{stack}"] = wanted.get(f"f{stack}", 0) + value
    times = ("--from", begin.isoformat(), "--to", until.isoformat(), "--dsn", dsn)
    for matcher in ("app", 'app{node="n"}'):  # from the rollup; and from the samples, for it knows no nodes
        code, out, err = run("profile", "top", matcher, *times, "--format", "json")
        assert code == 0, err
        found = {row["function"]: row["self"] for row in json.loads(out) if row["self"]}
        assert found == wanted, matcher
        assert sum(row["self_share"] for row in json.loads(out)) == pytest.approx(1)


def test_whole_hours_come_from_the_rollup_and_the_ends_from_the_samples(run, hours, store, database, tmp_path):  # noqa: F811
    dsn, first, rows = hours
    begin, until = first + timedelta(hours=0.25), first + timedelta(hours=8.75)
    times = ("--from", begin.isoformat(), "--to", until.isoformat(), "--dsn", dsn)
    page = tmp_path / "flame.html"
    assert run("profile", "flamegraph", "app", *times, "-o", page)[0] == 0
    assert page_data(page)["value"][0] == sum(value for at, _, value in rows if begin <= at < until)
    store.post("TRUNCATE TABLE samples_1h", database=database)
    whole = first + timedelta(hours=1), first + timedelta(hours=8)
    ends = sum(value for at, _, value in rows if begin <= at < whole[0] or whole[1] <= at < until)
    _code, out, _err = run("profile", "top", "--by", "service", *times, "--format", "json")
    assert json.loads(out)[0]["self"] == ends


PLACES = {11: ("main", "a"), 12: ("main", "b", "main"), 13: ("c",), 14: ("main", "a"), 15: ()}
FILES = {"main": "m.c", "a": "x.c", "b": "", "c": "x.c"}


def parts(stack, by):
    """Return the names that a stack counts for; two stacks have the same functions on other lines."""
    if not PLACES[stack]:
        return ["[stack not stored]"]
    lines = [stack + at for at in range(len(PLACES[stack]))]
    return [
        {"function": name, "file": FILES[name] or f"[no file] {name}",
         "line": f"{name} {FILES[name]}:{line}" if FILES[name] else name}[by]
        for name, line in zip(PLACES[stack], lines, strict=True)
    ]  # fmt: skip


@pytest.fixture
def labelled(store, database):
    """Six hours of samples under every combination of labels that the rollup keeps; (dsn, first hour, rows)."""
    dsn = f"{store.dsn}/{database}"
    migrate(ClickHouseSettings(dsn=dsn))
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)
    insert = _inserter(store, database)
    insert("stacks", [
        {"stack_id": stack, "functions": names, "files": [FILES[name] for name in names],
         "lines": [stack + at for at in range(len(names))], "last_seen": int(first.timestamp())}
        for stack, names in PLACES.items() if names
    ])  # fmt: skip
    rows, value = [], 101
    for hour in range(6):
        for number, stack in enumerate(PLACES):
            value += 2 * number + 7 * hour + 2
            rows.append({
                "time": (first + timedelta(hours=hour, minutes=13 * number)).isoformat(timespec="milliseconds"),
                "cluster": f"c{value % 2}", "node": f"n{number % 2}", "namespace": f"s{hour % 3}",
                "pod": f"p{number}", "container": "x", "service": f"app{number % 2}", "version": f"v{value % 3}",
                "type": "cpu", "unit": "nanoseconds", "stack_id": stack, "value": value, "period": 1,
            })  # fmt: skip
    insert("samples", rows)
    return dsn, first, rows


def sums(rows, by):
    """Return what ``top --by`` has to say of these rows: {name: (self, total)}; recursion counts once."""
    own, total = Counter(), Counter()
    for row in rows:
        names = parts(row["stack_id"], by) if by in ("function", "file", "line") else [row[by]]
        keys = [(row["service"], row["version"])] if by == "service" else [(name,) for name in names]
        own[keys[-1]] += row["value"]
        total.update(dict.fromkeys(keys, row["value"]))
    return {key: (own[key], total[key]) for key in total}


def test_every_grouping_has_the_sums_of_the_samples(run, labelled, store, database):  # noqa: F811
    dsn, first, rows = labelled
    begin, until = first + timedelta(hours=1), first + timedelta(hours=5)
    rows = [row for row in rows if begin.isoformat() <= row["time"] < until.isoformat()]
    some = [row for row in rows if (row["service"], row["cluster"]) == ("app1", "c0") and row["namespace"] != "s0"]
    assert some

    def asked(by, *matcher):
        times = ("--from", begin.isoformat(), "--to", until.isoformat(), "--dsn", dsn)
        code, out, err = run("profile", "top", *matcher, "--by", by, *times, "--format", "json")
        assert code == 0, err
        names = ("service", "version") if by == "service" else (by,)
        return {tuple(row[name] for name in names): (row["self"], row["total"]) for row in json.loads(out)}

    def check(by):
        assert asked(by) == sums(rows, by), by
        assert asked(by, 'app1{cluster="c0", namespace=~"s[12]"}') == sums(some, by), by

    kept = ("function", "file", "line", *queries.ROLLUP)
    for by in (*kept, "node", "pod", "container"):
        check(by)
    # Whole hours are asked for: what the rollup keeps does not need the samples.
    store.post("TRUNCATE TABLE samples", database=database)
    for by in kept:
        check(by)
    assert asked("node") == {}


def test_which_questions_read_the_rollup():
    now = datetime.now(UTC)
    day, minutes = selection.make("app", since="1d", now=now), selection.make("app", now=now)
    assert reading.source(queries.TOP["function"], day).name == "top_function_wide"
    assert reading.source(queries.TOP["function"], minutes) is queries.TOP["function"]
    assert reading.source(queries.TOP["node"], day) is queries.TOP["node"]
    assert reading.source(queries.TOP["version"], day).name == "top_version_wide"
    assert reading.source(queries.TOP["line"], day.also(pod="p")) is queries.TOP["line"]
    assert "@" not in reading.source(queries.FLAMEGRAPH, day).bound(day)[0]
