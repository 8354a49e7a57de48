"""The push endpoint's pure parts: names and labels, times, forms, and messages within their bounds."""

import numpy as np
import pytest

from collectors.ingest import batches, form, labels, nodespy
from collectors.ingest.body import Budget
from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import from_parameters
from collectors.scrapers.rows import Columns
from streams.schema import codec, stacks
from streams.schema.messages import Interval
from streams.schema.stack_columns import StackColumns

IDENTITY = {"cluster": "c", "node": "n", "namespace": "", "pod": "", "container": "", "service": "s", "version": "v"}


def columns(texts, values, types=("process_cpu",)):
    ids = np.array([stacks.stack_id(text) for text in texts], np.uint64)
    events = np.ones(len(texts), np.int64)
    found = StackColumns.from_texts(texts)
    return Columns(ids, found, types, ("nanoseconds",) * len(types), (10,) * len(types), np.array(values), events)


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("app", "app", {}),
        ("my app.cpu{}", "my app.cpu", {}),
        ("app{a=b, c.d = e=f}", "app", {"a": "b", "c.d": "e=f"}),
        ('app{version="v1",x=}', "app", {"version": "v1", "x": ""}),
    ],
)
def test_names(text, name, found):
    assert labels.parse_name(text) == (name, found)


@pytest.mark.parametrize("text", ["", "{a=b}", "app{a}", "app{a=b", "app{1=b}", "app{a=" + "x" * 3000 + "}",
                                  "app{" + ",".join(f"k{n}=v" for n in range(65)) + "}"])  # fmt: skip
def test_names_that_are_none(text):
    with pytest.raises(RefusedError) as refused:
        labels.parse_name(text)
    assert refused.value.status == 400


@pytest.mark.parametrize("text", ["1700000000", "1700000000000", "1700000000000000", "1700000000000000000"])
def test_times_are_told_apart_by_their_digits(text):
    upload = from_parameters({"name": "a", "from": text, "until": "1", "sampleRate": "x"}, "")
    assert (upload.start_ns, upload.end_ns, upload.rate) == (1_700_000_000 * 10**9, 1_700_000_000 * 10**9, 100)


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("./main.js:spend:9", "/srv/app/main.js", ("spend", "/srv/app/main.js")),
        ("/srv/app/main.js:spend:9", "/srv/app/main.js", ("spend", "/srv/app/main.js")),
        ("pkg/a.js:f:1", "/srv/node_modules/pkg/a.js", ("f", "/srv/node_modules/pkg/a.js")),
        ("./main.js:spend:9", "", ("spend", "./main.js")),
        ("node:internal/x:(anonymous:L#1:C#3):1", "node:internal/x", ("(anonymous)", "node:internal/x")),
        (":(garbage collector):0", "", ("(garbage collector)", "")),
        ("C:\\a.js:get x:4", "C:\\a.js", ("get x", "C:\\a.js")),
        ("spend", "/srv/app/main.js", ("spend", "/srv/app/main.js")),
        ("a::b:3", "b.cc", ("a::b:3", "b.cc")),
        ("", "", ("", "")),
        (":(anonymous:" * 1000, "", (":(anonymous:" * 1000, "")),
    ],
)
def test_names_of_the_node_client(name, file, expected):
    assert nodespy.plain(name, file) == expected


@pytest.mark.parametrize("body", [b"", b"--x\r\n", b"--x\r\n\r\nno name\r\n--x--", b'--x\r\nname="a"\r\n\r\ncut'])
def test_forms_that_are_none(body):
    with pytest.raises(RefusedError):
        form.fields(body, "multipart/form-data; boundary=x")


def test_a_form_keeps_every_byte():
    data = bytes(range(256)) + b"\r\n--y\r\n"
    body = b'--x\r\nContent-Disposition: form-data; filename="f"; name="profile"\r\n\r\n' + data + b"\r\n--x--\r\n"
    assert form.fields(body, 'multipart/form-data; boundary="x"') == {"profile": data}


def test_pieces_are_split_and_merged_without_loss(monkeypatch):
    monkeypatch.setattr(batches, "MAX_ROWS", 7)
    monkeypatch.setattr(batches, "MAX_BYTES", 200)
    texts = [stacks.join([stacks.frame_text("main"), stacks.frame_text(f"f{n}" * (n % 5 + 1))]) for n in range(101)]
    values = np.random.default_rng(3).integers(-2, 50, (101, 2))
    one = batches.piece(IDENTITY, columns(texts, values, ("process_cpu", "wall")), 5, 9)
    parts = batches.split(one)
    assert len(parts) > 10
    assert sum(part.dropped for part in parts) == one.dropped == np.count_nonzero(values < 0)
    found = {}
    for part in [*parts, batches.piece(IDENTITY, columns(texts[:1], [[1000]]), 5, 9)]:
        assert part.rows <= 7
        batch, _events = batches.merge([part])
        value, headers = codec.encode("profile", batch, Interval("push", "c", "n", "p", 0, 5, 9))
        for row in codec.decode(headers, value)[2].to_pylist():
            key = stacks.join(row["stack"]["frames"]), row["type"]
            found[key] = found.get(key, 0) + row["value"]
    wanted = {
        (text, kind): int(values[n, k])
        for n, text in enumerate(texts)
        for k, kind in enumerate(("process_cpu", "wall"))
        if values[n, k] > 0
    }
    wanted[texts[0], "process_cpu"] = wanted.get((texts[0], "process_cpu"), 0) + 1000
    assert found == wanted
    merged, _events = batches.merge(parts)
    assert merged.num_rows == one.rows
    assert len(merged.column("stack").dictionary) == len({text for text, _kind in wanted})


def test_the_budget_refuses_what_does_not_fit_beside_others_and_never_one_alone():
    budget = Budget(100)
    with budget.share() as one:
        one.take(150)
        with pytest.raises(RefusedError), budget.share() as two:
            two.take(1)
    assert budget.held == 0
