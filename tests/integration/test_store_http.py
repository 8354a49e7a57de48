"""The store as curl and other plain HTTP clients see it."""

import gzip
import http.client
import json
import socket
import struct
import time
import zlib
from urllib.parse import urlencode

import lz4.frame
import pyarrow as pa
import pytest
import zstandard

from sinks.embedded.compression import frame, unframed
from sinks.embedded.statement import STREAMED

pytestmark = pytest.mark.services
PASSWORDS = {
    "PERFSTREAM_STORE_PASSWORD": "secret",
    "PERFSTREAM_STORE_READER_USERNAME": "grafana",
    "PERFSTREAM_STORE_READER_PASSWORD": "look",
    "PERFSTREAM_STORE_READER_RESULT_ROWS": "1009",
    "PERFSTREAM_STORE_MAX_QUERY_BYTES": "100000",
    "PERFSTREAM_STORE_MAX_BODY_BYTES": "300000",
    "PERFSTREAM_STORE_MAX_CONNECTIONS": "5",
}


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def code(self):
        return int(self.headers.get("X-ClickHouse-Exception-Code", 0))


def ask(store, query="", body=None, *, method="POST", headers=None, path="/", **parameters):
    """Send one request; ``query`` stands in the URL when there is a body or it is a GET."""
    if query and (body is not None or method == "GET"):
        parameters["query"] = query
    elif body is None and method == "POST":
        body = query.encode()
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    try:
        target = path + ("?" + urlencode(parameters) if parameters else "")
        connection.request(method, target, body=body, headers=headers or {})
        with connection.getresponse() as response:
            return Answer(response)
    finally:
        connection.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A store with passwords, a reader and small bounds."""
    from tests.integration.conftest import start_store

    running = start_store(tmp_path_factory.mktemp("locked") / "data", environ=PASSWORDS)
    yield running
    running.stop()


@pytest.fixture
def table(store, database):
    ask(store, f"CREATE TABLE {database}.t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    return f"{database}.t"


def test_fixed_pages(store):
    for path in ("/", "/ping", "/replicas_status"):
        answer = ask(store, method="GET", path=path)
        assert (answer.status, answer.body) == (200, b"Ok.\n")
    assert ask(store, method="GET", path="/nothing").status == 404
    assert ask(store, method="HEAD", path="/ping").body == b""


def test_query_in_url_body_and_both(store):
    assert ask(store, "SELECT 1", method="GET").body == b"1\n"
    assert ask(store, "SELECT 2").body == b"2\n"
    assert ask(store, "SELECT number +", b" 3 FROM numbers(1)").body == b"3\n"
    assert ask(store, "SELECT 4;").body == b"4\n"


def test_get_only_reads(store, table):
    answer = ask(store, f"INSERT INTO {table} VALUES (1, 'x')", method="GET")
    assert (answer.status, answer.code) == (500, 164)  # as ClickHouse answers
    assert ask(store, f"DROP TABLE {table}", method="GET").code == 164
    # A reader of ours may still choose how it reads.
    assert ask(store, "SELECT getSetting('max_threads')", method="GET", max_threads=3).text == "3\n"
    assert ask(store, f"SELECT count() FROM {table}", method="GET").text == "0\n"


@pytest.mark.parametrize(
    ("insert", "data"),
    [
        ("FORMAT CSV", b'1,"x"\n2,"y"\n'),
        ("FORMAT JSONEachRow", b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n'),
        ("(b, a) FORMAT TSV", b"x\t1\ny\t2\n"),
        ("VALUES", b"(1, 'x'), (1 + 1, lower('Y'))"),
        ("FORMAT RowBinary", b"\1\0\0\0\0\0\0\0\1x\2\0\0\0\0\0\0\0\1y"),
        ("FORMAT Native", b"\2\2\1a\6UInt64\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1b\6String\1x\1y"),
    ],
)
def test_insert(store, table, insert, data):
    """The data of an INSERT in the body, after the statement in the URL or after the one in the body itself."""
    first = ask(store, f"INSERT INTO {table} {insert}", data)
    summary = json.loads(first.headers["X-ClickHouse-Summary"])
    assert (first.status, first.body, summary["written_rows"]) == (200, b"", "2")
    second = ask(store, body=f"INSERT INTO {table} {insert}\n".encode() + data)
    assert second.status == 200
    rows = ask(store, f"SELECT a, b, count() FROM {table} GROUP BY a, b ORDER BY a").text
    assert rows == "1\tx\t2\n2\ty\t2\n"


def test_chunked_insert(store, table):
    """Curl's ``-T -``: a body whose length nobody knows, over many chunks."""
    parts = (b"%d\tx%d\n" % (number, number) for number in range(20_011))
    answer = ask(store, f"INSERT INTO {table} FORMAT TSV", parts)
    assert answer.status == 200
    assert ask(store, f"SELECT count(), sum(a) FROM {table}").text == f"20011\t{20_011 * 20_010 // 2}\n"


def test_a_body_that_ends_early_is_not_inserted(store, table):
    with socket.create_connection(("127.0.0.1", store.port)) as client:
        target = urlencode({"query": f"INSERT INTO {table} FORMAT TSV"})
        client.sendall(f"POST /?{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n1\tx\n2\ty\n".encode())
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert ask(store, f"SELECT count() FROM {table}").text == "0\n"


FORMATS = {
    "TabSeparated": (b"1\tx\n2\ty\n", "text/tab-separated-values; charset=UTF-8"),
    "CSVWithNames": (b'"a","b"\n1,"x"\n2,"y"\n', "text/csv; charset=UTF-8"),
    "JSONEachRow": (b'{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n', "application/x-ndjson; charset=UTF-8"),
    "RowBinary": (b"\1\1x\2\1y", "application/octet-stream"),
    "Native": (b"\2\2\1a\5UInt8\1\2\1b\6String\1x\1y", "application/octet-stream"),
    "Values": (b"(1,'x'),(2,'y')", "text/plain; charset=UTF-8"),
}
ROWS = "SELECT * FROM values('a UInt8, b String', (1, 'x'), (2, 'y'))"


@pytest.mark.parametrize("name", FORMATS)
def test_formats(store, name):
    for answer in (
        ask(store, f"{ROWS} FORMAT {name}"),
        ask(store, ROWS, default_format=name),
        ask(store, ROWS, headers={"X-ClickHouse-Format": name}),
    ):
        assert (answer.body, answer.headers["Content-Type"]) == FORMATS[name]
        assert answer.headers["X-ClickHouse-Format"] == name


def test_streamed_formats_are_one_document(store):
    """Formats that are sent part by part hold every row once and nothing between the parts."""
    query = "SELECT number AS a FROM numbers(200003) SETTINGS max_threads = 1"
    numbers = range(200_003)
    lines = "".join(f"{number}\n" for number in numbers).encode()
    objects = "".join(f'{{"a":{number}}}\n' for number in numbers).encode()
    arrays = "".join(f"[{number}]\n" for number in numbers).encode()
    whole = {"rowbinary": struct.pack("<200003Q", *numbers), "jsoneachrow": objects, "jsonlines": objects,
             "ndjson": objects, "jsoncompacteachrow": arrays}  # fmt: skip
    spelled = ask(store, "SELECT name FROM system.formats WHERE is_output").text.split()
    streamed = [name for name in spelled if name.lower() in STREAMED - {"native", "lineasstring"}]
    assert len(streamed) == len(STREAMED) - 2
    for name in streamed:
        assert ask(store, query, default_format=name).body == whole.get(name.lower(), lines), name
    text = query.replace("number AS", "toString(number) AS")
    assert ask(store, text, default_format="LineAsString").body == lines


def test_whole_formats(store):
    answer = ask(store, "SELECT number FROM numbers(200003) FORMAT JSON")
    found = json.loads(answer.body)
    assert (found["rows"], len(found["data"])) == (200_003, 200_003)
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    arrow = pa.ipc.open_stream(ask(store, "SELECT number FROM numbers(200003) FORMAT ArrowStream").body).read_all()
    assert sum(arrow["number"].to_pylist()) == 200_003 * 200_002 // 2
    for name in ("CSVWithNames", "TSVWithNames"):
        lines = ask(store, "SELECT number FROM numbers(200003)", default_format=name).text.splitlines()
        assert (len(lines), lines[0].strip('"')) == (200_004, "number")
    totals = ask(store, "SELECT number % 2 AS k, count() FROM numbers(7) GROUP BY k WITH TOTALS ORDER BY k").text
    assert totals == "0\t4\n1\t3\n\n0\t7\n"


def test_headers(store, database):
    answer = ask(store, "SELECT count() FROM numbers(1009)", query_id="mine-1")
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine-1"
    assert answer.headers["X-ClickHouse-Timezone"] == ask(store, "SELECT timezone()").text.strip()
    assert answer.headers["X-ClickHouse-Server-Display-Name"] == ask(store, "SELECT hostName()").text.strip()
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert summary["read_rows"] == "1009"
    assert int(summary["elapsed_ns"]) > 0
    named = ask(store, "SELECT currentDatabase()", headers={"X-ClickHouse-Database": database})
    assert named.text == ask(store, "SELECT currentDatabase()", database=database).text == database + "\n"
    # No name of a client's may end a header.
    split = ask(store, "SELECT 1", query_id="a\r\nSet-Cookie: x€")
    assert (split.status, split.headers["Set-Cookie"]) == (200, None)


def test_parameters_are_values_never_text(store, table):
    text = "it's {a:UInt8} `\\ \"; DROP TABLE t"
    given = {"param_a": text.replace("\\", "\\\\"), "param_b": "[1,2]", "default_format": "JSONCompactEachRow"}
    assert json.loads(ask(store, "SELECT {a:String}, {b:Array(UInt8)}", method="GET", **given).body) == [text, [1, 2]]
    assert ask(store, "SELECT {c:Identifier}", param_c="no column").code == 47
    ask(store, f"INSERT INTO {table} VALUES", b"({n:UInt64}, {s:String})", param_n="7", param_s="O'Neil")
    assert ask(store, f"SELECT * FROM {table}").text == "7\tO\\'Neil\n"
    assert ask(store, "SELECT {a:UInt8}").code == 456


def test_settings(store):
    assert ask(store, "SELECT getSetting('max_block_size')", max_block_size=1009).text == "1009\n"
    assert ask(store, "SELECT getSetting('max_block_size')").text != "1009\n"
    answer = ask(store, "SELECT 1", no_such_setting=1)
    assert (answer.status, answer.code) == (404, 115)
    answer = ask(store, "SELECT sleepEachRow(1) FROM numbers(60) SETTINGS max_block_size = 1", max_execution_time=1)
    assert (answer.status, answer.code) == (408, 159)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELEC 1", 400, 62), ("SELECT 1; SELECT 2", 400, 62), ("", 400, 62), ("SELECT * FROM no_such_table", 404, 60),
        ("SELECT nothing", 404, 47), ("SELECT no_such()", 404, 46), ("SELECT 1 FORMAT Nothing", 404, 73),
        ("SELECT * FROM nowhere.t", 404, 81), ("SELECT toUInt8('x')", 400, 6), ("SELECT throwIf(1)", 500, 395),
        ("SELECT 1 INTO OUTFILE '/tmp/out'", 500, 344),
        ("SELECT throwIf(number = 60000) FROM numbers(70000)", 500, 395),
    ],
)  # fmt: skip
def test_errors(store, query, status, code):
    answer = ask(store, query)
    assert (answer.status, answer.code) == (status, code)
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "(version " in answer.text
    assert answer.text.count("\n") == 1


def test_an_error_after_the_answer_has_begun(store):
    """The status is sent by then: the error stands at the end, and the answer is not a whole one."""
    query = "SELECT number, throwIf(number = 3000000) FROM numbers(4000000) SETTINGS max_block_size = 65536"
    with pytest.raises(http.client.IncompleteRead) as error:
        ask(store, query)
    assert b"Code: 395. DB::Exception" in error.value.partial[-2000:]
    assert b"__exception__" in error.value.partial[-2000:]
    # Asked to wait, the server knows before it answers.
    assert ask(store, query, wait_end_of_query=1).status == 500


@pytest.mark.parametrize(
    ("name", "compress", "decompress"),
    [
        ("gzip", gzip.compress, gzip.decompress),
        ("deflate", zlib.compress, zlib.decompress),
        ("zstd", zstandard.compress, lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
        ("lz4", lz4.frame.compress, lz4.frame.decompress),
    ],
)
def test_content_encodings(store, table, name, compress, decompress):
    data = b"".join(b"%d\tname %d\n" % (number, number % 7) for number in range(100_003))
    sent = ask(store, f"INSERT INTO {table} FORMAT TSV", compress(data), headers={"Content-Encoding": name})
    assert sent.status == 200
    wanted = {"Accept-Encoding": name}
    answer = ask(store, f"SELECT * FROM {table} ORDER BY a", headers=wanted, enable_http_compression=1)
    assert answer.headers["Content-Encoding"] == name
    assert decompress(answer.body) == data
    plain = ask(store, f"SELECT count() FROM {table}", headers=wanted)
    assert (plain.headers["Content-Encoding"], plain.text) == (None, "100003\n")
    cut = ask(store, f"INSERT INTO {table} FORMAT TSV", compress(data)[:-9], headers={"Content-Encoding": name})
    assert cut.status == 500
    assert cut.code == 271


@pytest.mark.parametrize("method", ["LZ4", "ZSTD", "NONE"])
def test_framed_blocks(store, table, method):
    """ClickHouse's own compression: ``decompress=1`` in, ``compress=1`` out."""
    data = b"".join(b"%d\tname %d\n" % (number, number % 7) for number in range(20_011))
    blocks = frame(data[:100_000], method) + frame(data[100_000:], method)
    assert ask(store, f"INSERT INTO {table} FORMAT TSV", blocks, decompress=1).status == 200
    answer = ask(store, f"SELECT * FROM {table} ORDER BY a", compress=1, network_compression_method=method)
    assert b"".join(unframed([answer.body])) == data
    broken = bytes([blocks[0] ^ 1]) + blocks[1:]
    assert ask(store, f"INSERT INTO {table} FORMAT TSV", broken, decompress=1).code == 40
    assert ask(store, f"SELECT count() FROM {table}").text == "20011\n"


def test_sessions(store, unique):
    def said(query, body=None, session=unique, **parameters):
        return ask(store, query, body, session_id=session, **parameters)

    assert said("CREATE TEMPORARY TABLE mine (a UInt8)").status == 200
    assert said("INSERT INTO mine VALUES", b"(7)").status == 200
    assert said("SELECT a FROM mine").text == "7\n"
    assert said("SELECT a FROM mine", session=unique + "other").code == 60
    assert ask(store, "SELECT a FROM mine").code == 60
    said("SET max_block_size = 1013")
    assert said("SELECT getSetting('max_block_size')", max_block_size=1019).text == "1019\n"
    assert said("SELECT getSetting('max_block_size')").text == "1013\n"
    assert said("SELECT 1", session=unique + "none", session_check=1).code == 372
    assert said("SELECT 1", session_timeout="never").code == 374
    assert said("SELECT 1", session_timeout=4000).code == 374


def test_a_session_ends(store, unique):
    ask(store, "CREATE TEMPORARY TABLE mine (a UInt8)", session_id=unique, session_timeout=1)
    deadline = time.monotonic() + 20
    while ask(store, "SELECT 1", session_id=unique, session_check=1, session_timeout=1).code != 372:
        assert time.monotonic() < deadline
        time.sleep(1.2)


def test_a_session_takes_one_request_at_a_time(store, unique):
    slow = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    ask(store, "SET max_threads = 1", session_id=unique)
    slow.request("POST", f"/?session_id={unique}", body="SELECT sleepEachRow(0.5) FROM numbers(3)")
    deadline = time.monotonic() + 10
    # Not before it has the session: it would be the one that is refused.
    running = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleepEachRow(0.5)%'"
    while ask(store, running).text != "1\n":
        assert time.monotonic() < deadline
    while ask(store, "SELECT 1", session_id=unique).code != 373:
        assert time.monotonic() < deadline
    with slow.getresponse() as response:
        assert response.status == 200
    slow.close()


def test_a_client_that_hangs_up_ends_its_statement(store, unique):
    query = f"SELECT count() FROM numbers(1000000000000) WHERE NOT ignore('{unique}')"
    client = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    client.request("POST", "/", body=query)

    def found():
        text = "SELECT count() FROM system.processes WHERE query LIKE {like:String} AND query NOT LIKE '%processes%'"
        return int(ask(store, text, param_like=f"%{unique}%").text)

    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
    client.close()
    while found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_keep_alive(store):
    client = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    client.connect()
    port = client.sock.getsockname()[1]
    for query, status in (("SELECT 1", 200), ("SELEC", 400), ("SELECT number FROM numbers(300007)", 200)):
        client.request("POST", "/", body=query)
        response = client.getresponse()
        response.read()
        assert response.status == status
        assert client.sock.getsockname()[1] == port
    client.close()


# --- passwords and bounds -------------------------------------------------------------------------------------------

OWNER = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "secret"}
READER = {"X-ClickHouse-User": "grafana", "X-ClickHouse-Key": "look"}


def test_passwords(locked):
    assert ask(locked, method="GET", path="/ping").status == 200
    none = ask(locked, "SELECT 1")
    assert (none.status, none.code, none.headers["WWW-Authenticate"][:5]) == (401, 194, "Basic")
    wrong = ask(locked, "SELECT 1", headers=OWNER | {"X-ClickHouse-Key": "guess"})
    assert (wrong.status, wrong.code) == (403, 516)
    assert ask(locked, "SELECT 1", headers=OWNER).status == 200
    assert ask(locked, "SELECT 1", user="default", password="secret").status == 200


def test_the_reader_reads_and_no_more(locked):
    ask(locked, "CREATE TABLE IF NOT EXISTS kept (a UInt8) ENGINE = MergeTree ORDER BY a", headers=OWNER)
    assert ask(locked, "SELECT count() FROM kept", headers=READER).text == "0\n"
    for query in (
        "INSERT INTO kept VALUES (1)", "INSERT INTO kept SELECT 1", "DROP TABLE kept", "SET max_threads = 1",
        "CREATE TABLE own (a UInt8) ENGINE = Memory", "SELECT 1 SETTINGS max_memory_usage = 0", "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
    ):  # fmt: skip
        assert ask(locked, query, headers=READER).code == 164, query
    assert ask(locked, "SELECT number FROM numbers(1010)", headers=READER).code == 396
    assert ask(locked, "SELECT number FROM numbers(1010)", headers=READER, max_result_rows=0).code == 396
    assert ask(locked, "SELECT number FROM numbers(1009)", headers=READER).text.count("\n") == 1009
    assert ask(locked, "SELECT 1", headers=READER, session_id="s").status == 200


def test_bounds(locked):
    too_long = ask(locked, "SELECT " + "1" * 150_000, headers=OWNER)
    assert (too_long.status, too_long.code) == (413, 229)
    ask(locked, "CREATE TABLE IF NOT EXISTS bound (a UInt64) ENGINE = MergeTree ORDER BY a", headers=OWNER)
    bomb = gzip.compress(b"1\n" * 200_000)
    too_large = ask(locked, "INSERT INTO bound FORMAT TSV", bomb, headers=OWNER | {"Content-Encoding": "gzip"})
    assert (too_large.status, too_large.code) == (413, 229)
    assert ask(locked, "SELECT count() FROM bound", headers=OWNER).text == "0\n"
    assert ask(locked, "INSERT INTO bound FORMAT TSV", b"1\n" * 100_000, headers=OWNER).status == 200


def test_too_many_connections(locked):
    """One more than may be is turned away at once, with a status that says to come again."""
    held = [socket.create_connection(("127.0.0.1", locked.port)) for _ in range(5)]
    try:
        answer = ask(locked, method="GET", path="/ping")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, 202, "1")
    finally:
        for client in held:
            client.close()
    deadline = time.monotonic() + 10
    while ask(locked, method="GET", path="/ping").status != 200:
        assert time.monotonic() < deadline
