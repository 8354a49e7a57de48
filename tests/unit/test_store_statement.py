"""Statements and requests: kind, format, where the data begin, in any cut and whatever is sent."""

import time
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.embedded.errors import QueryError, http_status
from sinks.embedded.request import parameters_of, read
from sinks.embedded.settings import Options
from sinks.embedded.statement import analyse


def take(body, options=None, method="POST", **parameters):
    chunks = [body] if isinstance(body, bytes) else body
    return read(options or Options(), method, parameters, Message(), iter(chunks))


@pytest.mark.parametrize(
    ("query", "kind", "named"),
    [
        (b"SELECT 1", "select", ""),
        (b"select 1 format JSON", "select", "JSON"),
        (b"SELECT 1 FORMAT JSON SETTINGS max_threads = 1", "select", "JSON"),
        (b"SELECT ' FORMAT CSV', `FORMAT TSV` FROM t -- FORMAT XML", "select", ""),
        (b"SELECT * FROM (SELECT 1 AS format FORMAT CSV)", "select", ""),
        (b"/* INSERT */ -- x\n WITH 1 AS x SELECT x FORMAT Native;", "select", "Native"),
        (b"(SELECT 1) UNION ALL (SELECT 2) FORMAT CSV", "select", "CSV"),
        (b"SHOW TABLES FORMAT CSV", "other", "CSV"),
        (b"SET max_threads = 1", "set", ""),
        (b"ALTER TABLE t UPDATE a = 'INSERT' WHERE 1", "other", ""),
        (b"INSERT INTO t SELECT 1", "insert_select", ""),
        (b"INSERT INTO t (a, b) WITH 1 AS x SELECT x, x", "insert_select", ""),
        (b"INSERT INTO t (a) (SELECT 1)", "insert_select", ""),
    ],
)
def test_kinds(query, kind, named):
    statement = analyse(query)
    assert (statement.kind, statement.format, statement.data) == (kind, named, b"")


@pytest.mark.parametrize(
    ("query", "text", "named", "data"),
    [
        (b"INSERT INTO t VALUES (1), ('FORMAT')", b"INSERT INTO t", "Values", b" (1), ('FORMAT')"),
        (b"insert into `VALUES` (`FORMAT`) values(1)", b"insert into `VALUES` (`FORMAT`)", "Values", b"(1)"),
        (b"INSERT INTO t FORMAT CSV\n1\n2\n", b"INSERT INTO t", "CSV", b"1\n2\n"),
        (b'INSERT INTO t (a) FORMAT JSONEachRow {"a": 1}', b"INSERT INTO t (a)", "JSONEachRow", b'{"a": 1}'),
        (b"INSERT INTO t FORMAT CSV;\r\n\n1", b"INSERT INTO t", "CSV", b"\n1"),
        (b"INSERT INTO t SETTINGS async_insert = 0 FORMAT TSV", b"INSERT INTO t SETTINGS async_insert = 0", "TSV", b""),
        (b"INSERT INTO FUNCTION null('a Int8') VALUES (1)", b"INSERT INTO FUNCTION null('a Int8')", "Values", b" (1)"),
        (b"INSERT INTO t (a, b);", b"INSERT INTO t (a, b)", "Values", b""),
    ],
)  # fmt: skip
def test_inserts(query, text, named, data):
    statement = analyse(query)
    assert (statement.kind, statement.text, statement.format, statement.data) == ("insert", text, named, data)


@pytest.mark.parametrize("query", [b"USE x", b"SET a = 1", b"CREATE TEMPORARY TABLE t (a Int8)"])
def test_statements_that_change_their_session(query):
    assert analyse(query).stateful
    assert not analyse(b"SELECT 'SET', temporary FROM t").stateful


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (b"SELECT 1 INTO OUTFILE '/tmp/x'", 344),
        (b"select 1 into /* */ outfile '/tmp/x' format CSV", 344),
        (b"INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV", 78),
    ],
)
def test_files_of_the_machine(query, code):
    with pytest.raises(QueryError) as error:
        analyse(query)
    assert error.value.code == code


@settings(deadline=None)
@given(
    data=st.binary(max_size=400) | st.binary(min_size=1, max_size=9).map(lambda part: part * 40_009),
    cuts=st.lists(st.integers(1, 60), max_size=8),
    given_in=st.sampled_from(["body", "url"]),
    end=st.sampled_from([b"FORMAT RowBinary\n", b"(a, b) FORMAT Native\n", b"VALUES ("]),
)
def test_an_insert_is_the_same_in_any_cut(data, cuts, given_in, end):
    """Statement and data are told apart wherever the network cuts them, and no byte of the data is lost or changed."""
    head = b"INSERT INTO db.t /* VALUES */ " + end
    body = b"x" + data
    whole, parts = (body if given_in == "url" else head + body), []
    for size in cuts:
        parts.append(whole[:size])
        whole = whole[size:]
    parts.append(whole)
    request = take(parts, **({"query": head.decode()} if given_in == "url" else {}))
    assert request.statement.kind == "insert"
    rest = b"".join(request.body)
    assert rest == (b" (" if end.startswith(b"VALUES") else b"") + body


@settings(deadline=None)
@given(query=st.binary(max_size=200) | st.text("INSERTVALUFOMSC ('`\"\\/*-#,);\n", max_size=80).map(str.encode))
def test_anything_is_a_statement_or_an_error(query):
    codes = set()
    try:
        b"".join(take(query).body)
    except QueryError as error:
        codes = {error.code}
    assert codes <= {62, 73, 78, 344}


@pytest.mark.parametrize("part", [rb"'\'", b"/*", b"'\"`", b"`\\", b"INSERT (", b"'' "])
def test_hostile_text_takes_linear_time(part):
    began = time.process_time()
    analyse(b"INSERT INTO t " + part * (1_000_000 // len(part)))
    analyse(b"SELECT " + part * (1_000_000 // len(part)))
    assert time.process_time() - began < 10  # a quadratic scan takes hours


def test_a_statement_in_url_and_body_is_one_text():
    request = take(b"FROM system.one", query="SELECT 7")
    assert request.statement.text == b"SELECT 7\nFROM system.one"


def test_bounds():
    small = Options(max_query_bytes=1000)
    for body, parameters in ((b"SELECT " + b"1" * 2000, {}), (b"1" * 2000, {"query": "SELECT 1,"})):
        with pytest.raises(QueryError) as error:
            take([body[:700], body[700:]], small, **parameters)
        assert error.value.status == 413
    # The data of an INSERT are no part of the statement.
    assert len(b"".join(take(b"INSERT INTO t FORMAT CSV\n" + b"1\n" * 2000, small).body)) == 4000


def test_output_format_comes_from_the_statement_first():
    assert take(b"SELECT 1 FORMAT CSV", default_format="JSON").output == "CSV"
    assert take(b"SELECT 1", default_format="JSON").output == "JSON"
    assert take(b"SELECT 1").output == "TabSeparated"
    with pytest.raises(QueryError) as error:
        take(b"INSERT INTO t VALUES (1)", default_format="X\r\nSet-Cookie: a")
    assert error.value.code == 73


def test_settings_and_parameters():
    path, parameters = parameters_of("/?query=SELECT+1&max_threads=3&param_a%5B=%C3%A9&query_id=q&max_threads=5")
    request = take(b"", **parameters)
    assert (path, request.settings, request.params) == ("/", {"max_threads": "5"}, {"a[": "é"})
    for target in ("/?" + "a=1&" * 2000, "/?a=%ff"):
        with pytest.raises(QueryError) as error:
            parameters_of(target)
        assert error.value.status == 400


def test_http_status():
    expected = {62: 400, 60: 404, 115: 404, 194: 401, 516: 403, 497: 403, 229: 413, 159: 408, 202: 503, 164: 500}
    assert {code: http_status(code) for code in expected} == expected
    nested = QueryError.from_engine(RuntimeError("Code: 1. DB::Exception: Code: 76. DB::ErrnoException: Cannot open"))
    assert (nested.code, nested.status) == (76, 503)
    assert QueryError.from_engine(RuntimeError("boom")).code == 1001
