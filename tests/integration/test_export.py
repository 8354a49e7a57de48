"""``profile export``: other programs read it, and their sums are those of ``profile top``, to the unit."""

import json
import re
import subprocess
from collections import defaultdict

import pytest

from collectors.ingest import speedscope, text
from collectors.ingest.upload import Upload
from collectors.scrapers import pprof
from dashboards.export.pprof import _varints
from streams.schema import stacks
from tests.integration.known_rows import MS
from tests.integration.test_reading import known, run  # noqa: F401 - fixtures

pytestmark = pytest.mark.services

SELECTIONS = [("{}", {}), ('shop{version="v1.1"}', {"service": "shop", "version": "v1.1"}),
              ('{node!="node-a"}', {"node": "node-b"})]  # fmt: skip


@pytest.fixture
def export(run, known, tmp_path):  # noqa: F811
    """Call ``profile export``; the file's bytes."""

    def call(form, matcher="{}", *arguments):
        path = tmp_path / "new" / f"profile.{form}"
        code, out, err = run("profile", "export", matcher, "--format", form, "-o", path, *known.times,
                             "--dsn", known.dsn, *arguments)  # fmt: skip
        assert (code, out, err) == (0, "", "")
        return path

    return call


def sums(weighted):
    """{function: (self, total)} of (frames root first, value), recursion counted once."""
    own, total = defaultdict(int), defaultdict(int)
    for frames, value in weighted:
        own[frames[-1]] += value
        for name in set(frames):
            total[name] += value
    return {name: (own[name], total[name]) for name in total}


@pytest.mark.parametrize(("matcher", "labels"), SELECTIONS)
def test_go_tool_pprof_agrees_to_the_unit(export, known, matcher, labels):  # noqa: F811
    path = export("pprof", matcher)
    done = subprocess.run(
        ["go", "tool", "pprof", "-top", "-unit=nanoseconds", "-nodecount=0", "-nodefraction=0", "-edgefraction=0",
         "-symbolize=none", str(path)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        row = re.fullmatch(r" *(-?\d+)(?:ns)? +\S+% +\S+% +(-?\d+)(?:ns)? +\S+% +(.+)", line)
        if row:
            found[row[3].removesuffix(" (inline)")] = int(row[1]), int(row[2])
    assert found == known.top(**labels)
    assert "Type: cpu" in done.stdout


@pytest.mark.parametrize(("matcher", "labels"), SELECTIONS)
def test_imported_again_it_has_the_same_sums(export, known, matcher, labels):  # noqa: F811
    decoded = pprof.decode(export("pprof", matcher).read_bytes())
    assert (decoded.types, decoded.units, decoded.default) == (("cpu",), ("nanoseconds",), "cpu")
    assert (decoded.period_type, decoded.period_unit, decoded.period) == ("cpu", "nanoseconds", 20 * MS)
    assert decoded.time_ns == round(known.start.timestamp() * 1e9)
    assert decoded.duration_ns == 300 * 10**9
    frames = [[frame.function for frame in stacks.split(stack)] for stack in decoded.texts]
    assert sums(zip(frames, decoded.values[:, 0].tolist(), strict=True)) == known_top(known, labels)


def known_top(known, labels):  # noqa: F811
    """What the contract makes of the known names: no control characters."""
    clean = str.maketrans({"\t": " "})
    return {name.translate(clean): found for name, found in known.top(**labels).items()}


def test_files_and_lines_are_kept(export):
    decoded = pprof.decode(export("pprof", "shop").read_bytes())
    assert "main\t\t1\nwork\twork.c\t2\nalpha\talph.c\t3" in decoded.texts


UPLOAD = Upload("shop", {}, "folded", "", 0, 10**10, 100, "", "")


@pytest.mark.parametrize(("matcher", "labels"), SELECTIONS)
def test_folded_has_the_same_sums(export, known, matcher, labels):  # noqa: F811
    data = export("folded", matcher).read_bytes()
    rows = [line.rpartition(" ") for line in data.decode().splitlines()]
    assert sums((stack.split(";"), int(value)) for stack, _, value in rows) == known.top(**labels)
    assert len({stack for stack, _, _ in rows}) == len(rows)
    (series,) = text.folded(data, UPLOAD)
    assert series.profile.values[:, 0].sum() == known.sum(**labels)


def test_a_separator_in_a_name_stays_inside_its_frame(run, store, database, tmp_path):  # noqa: F811
    from runtime.settings import ClickHouseSettings
    from sinks.migrate import migrate
    from tests.integration.known_rows import _inserter, start_of_data

    migrate(ClickHouseSettings(dsn=f"{store.dsn}/{database}"))
    insert, at = _inserter(store, database), start_of_data().isoformat()
    insert("stacks", [{"stack_id": 1, "functions": ["a;b", "Foo::bar<int; 3>"], "files": ["", ""], "lines": [0, 0],
                       "last_seen": at}])  # fmt: skip
    row = {"time": at, "service": "x", "type": "heap", "unit": "bytes", "stack_id": 1}
    insert("samples", [row | {"value": 7, "period": 512}, row | {"value": 4, "period": 3}])
    path = tmp_path / "x.folded"
    code, out, err = run(
        "profile", "export", "--type", "heap", "--format", "folded", "--dsn", f"{store.dsn}/{database}"
    )
    assert (code, out, err) == (0, "a:b;Foo::bar<int: 3> 11\n", "")
    code, _out, _err = run("profile", "export", "--type", "heap", "-o", path, "--dsn", f"{store.dsn}/{database}")
    decoded = pprof.decode(path.read_bytes())
    assert (decoded.period, decoded.units, decoded.values.tolist()) == (0, ("bytes",), [[11]])


@pytest.mark.parametrize(("matcher", "labels"), SELECTIONS)
def test_speedscope_has_the_same_sums(export, known, matcher, labels):  # noqa: F811
    data = export("speedscope", matcher).read_bytes()
    document = json.loads(data)
    (profile,) = document["profiles"]
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    weighted = zip(([frames[i] for i in stack] for stack in profile["samples"]), profile["weights"], strict=True)
    assert sums(weighted) == known.top(**labels)
    assert (profile["type"], profile["unit"], profile["startValue"]) == ("sampled", "nanoseconds", 0)
    assert profile["endValue"] == known.sum(**labels)
    if not labels:
        assert {"name": "alpha", "file": "alph.c", "line": 3} in document["shared"]["frames"]
    (series,) = speedscope.decode(data, UPLOAD)
    assert series.profile.values[:, 0].sum() == known.sum(**labels)


def test_old_times_come_from_the_hourly_rollup(run, known, tmp_path):  # noqa: F811
    path = tmp_path / "old.pb.gz"
    assert run("profile", "export", "--since", "40d", "-o", path, "--dsn", known.dsn)[0] == 0
    assert pprof.decode(path.read_bytes()).values.sum() == known.sum()


def test_nothing_to_export_and_no_place_for_it_are_one_line(run, known, tmp_path):  # noqa: F811
    code, out, err = run("profile", "export", "shpo", *known.times, "--dsn", known.dsn)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert 'nothing recorded for cpu{service="shpo"}' in err
    code, out, err = run("profile", "export", *known.times, "--dsn", known.dsn, "-o", tmp_path)
    assert (code, out) == (1, "")
    assert f"cannot write {tmp_path}: Is a directory" in err


def test_varints_of_every_length():
    import numpy as np

    numbers = [0, 1, 127, 128, 16383, 16384, 2**35 - 1, 2**35, 2**63 - 1, 2**63, 2**64 - 1]
    data, at = _varints(np.array(numbers, np.uint64))
    found = []
    for start, end in zip(at[:-1].tolist(), at[1:].tolist(), strict=True):
        part = data[start:end]
        assert all(byte & 0x80 for byte in part[:-1])
        assert not part[-1] & 0x80
        found.append(sum((byte & 0x7F) << 7 * i for i, byte in enumerate(part)))
    assert found == numbers
