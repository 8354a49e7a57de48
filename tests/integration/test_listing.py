"""``profile list`` and ``profile top --by LABEL`` on a real store whose every sum is known."""

import json

import pytest

from dashboards import listing
from tests.integration.known_rows import MS
from tests.integration.test_reading import ask, by_name, known, run  # noqa: F401 - fixtures

pytestmark = pytest.mark.services

UNIT = 114 * 30 * MS  # both nodes, all intervals
WALK = {("walk.c", 2): (0, 97 + 89), ("walk.c", 3): (0, 97), ("walk.c", 4): (97 + 89, 97 + 89)}


@pytest.fixture
def show(run, known):  # noqa: F811
    """Call ``profile list`` for the table; (standard output, standard error)."""

    def call(*arguments):
        code, out, err = run("profile", "list", *arguments, *known.times, "--dsn", known.dsn)
        assert code == 0, err
        return out, err

    return call


def test_each_line_has_its_figures_and_recursion_counts_once(ask, known):  # noqa: F811
    rows = ask("list", "walk", "shop")
    assert {(row["file"], row["line"]): (row["self"], row["total"]) for row in rows} == {
        place: (own * UNIT, total * UNIT) for place, (own, total) in WALK.items()
    }
    whole = known.sum(service="shop")
    assert [row["total_share"] for row in rows] == [pytest.approx(row["total"] / whole) for row in rows]
    assert set(rows[0]) == {"function", "file", "line", "self", "total", "self_share", "total_share", "unit"}
    assert sum(row["self"] for row in rows) == known.top(service="shop")["walk"][0]


def test_the_selection_and_the_hourly_rollup_hold_here_too(ask, run, known):  # noqa: F811
    assert run("profile", "list", "alpha", 'shop{version="v1.1"}', *known.times, "--dsn", known.dsn)[0] == 1
    (row,) = ask("list", "alpha", '{node=~"node-b"}')
    assert row["self"] == 503 * 13 * 30 * MS
    (row,) = ask("list", "alpha", times=("--since", "40d"))
    assert row["self"] == 503 * UNIT


def test_the_source_stands_beside_the_figures(show, ask, tmp_path):  # noqa: F811
    folder = tmp_path / "deep" / "inside"
    folder.mkdir(parents=True)
    text = ["// walk", "int walk(int n) {", "\tif (n) walk(n - 1);", "    return n;\x1b[2J", "}", "", "int far_away;"]
    (folder / "walk.c").write_text("\n".join(text))
    out, err = show("walk", "shop", "--source", tmp_path, "--context", 1)
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("self ")
    assert lines[0].endswith("of walk")
    assert lines[2] == str(folder / "walk.c")
    table = [line.split(maxsplit=2) for line in lines[3:]]
    assert table[0] == ["self", "total", "line  source"]
    assert [line.rsplit("  ", 1)[-1].strip() for line in lines[4:]] == [
        "// walk", "int walk(int n) {", "if (n) walk(n - 1);", "return n;\ufffd[2J", "}",
    ]  # fmt: skip
    assert "10.6 min" in lines[5]  # 186 ms of 114 parts in 30 intervals
    assert "far_away" not in out
    rows = ask("list", "walk", "shop", "--source", tmp_path)
    assert [row["source"] for row in rows] == ["int walk(int n) {", "    if (n) walk(n - 1);", "    return n;\x1b[2J"]


def test_without_source_there_are_line_numbers(show, tmp_path):
    out, err = show("walk", "shop")
    assert err == ""
    assert out.splitlines()[3].split() == ["self", "total", "line"]
    assert [line.split()[-1] for line in out.splitlines()[4:]] == ["2", "3", "4"]
    out, err = show("walk", "shop", "--source", tmp_path)
    assert err == f"walk.c is not under {tmp_path}\n"
    (tmp_path / "walk.c").write_text("one line")
    _out, err = show("walk", "shop", "--source", tmp_path)
    assert "has 1 lines, the profile knows line 4: another version?" in err


def test_a_part_of_a_name_will_do_when_it_is_the_only_one(ask, run, known):  # noqa: F811
    assert {row["function"] for row in ask("list", "ALPH", "shop")} == {"alpha"}
    code, out, err = run("profile", "list", "tiny_1", *known.times, "--dsn", known.dsn)
    assert (code, out) == (2, "")
    assert "no function is called 'tiny_1'; did you mean tiny_1000, tiny_1001" in err
    code, _out, err = run("profile", "list", "nowhere", *known.times, "--dsn", known.dsn)
    assert code == 1
    assert "no function has 'nowhere' in its name in cpu from " in err
    code, _out, err = run("profile", "list", "alpha", "shpo", *known.times, "--dsn", known.dsn)
    assert code == 1
    assert "in that time there is: " in err
    evil = "alpha' OR 1=1 --{function:String}"
    assert run("profile", "list", evil, *known.times, "--dsn", known.dsn)[0] == 1


def test_a_profile_cannot_point_outside_the_directory(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.c").write_text("secret")
    (inside / "link.c").symlink_to(outside / "secret.c")
    (inside / "a" / "main.c").write_text("main")
    for file in ("../out/secret.c", str(outside / "secret.c"), "link.c", "", "..", "/", "x\0y", "z" * 5000):
        assert listing.find(inside, file) is None, file
    for file in ("/build/1/a/main.c", "main.c", "C:\\build\\a\\main.c", "../../a/main.c"):
        assert listing.find(inside, file) == inside / "a" / "main.c", file
    (inside / "main.c").write_text("other")
    assert listing.find(inside, "/build/a/main.c") == inside / "a" / "main.c"
    assert listing.find(inside, "/build/b/main.c") == inside / "main.c"


@pytest.mark.parametrize("label", ["cluster", "node", "namespace", "pod", "container", "version"])
def test_top_by_any_label(ask, known, label):  # noqa: F811
    rows = by_name(ask("top", "--by", label), label)
    values = {row[label] for row in known.samples if row["type"] == "cpu"}
    assert rows == {value: (known.sum(**{label: value}),) * 2 for value in values}
    assert len(ask("top", "--by", label, "-n", 1)) == 1


def test_top_by_a_label_that_the_rollup_does_not_keep(run, known):  # noqa: F811
    code, out, err = run("profile", "top", "--by", "node", "--since", "40d", "--dsn", known.dsn)
    assert (code, out) == (2, "")
    assert "'node' is not kept here; group by cluster, namespace, service, version" in err
    code, out, _err = run(
        "profile", "top", "--by", "namespace", "--since", "40d", "--dsn", known.dsn, "--format", "json"
    )
    assert {row["namespace"] for row in json.loads(out)} == {"prod", "jobs"}
