"""The store's doors: https with a verified certificate, and a reading user that can only read, within bounds."""

import contextlib
import gc
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver import httputil
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from deploy.broker import free_port
from sinks.client import close
from tests.integration.secure_kafka import Authority
from tests.integration.test_kafka_access import command
from tests.integration.test_store_process import refusal, wait_for

pytestmark = pytest.mark.services
OWNER, READER = ("default", "canary-owner-52"), ("grafana", "canary-reader-97")
MIB = 1 << 20
ROWS = 2003  # clients read the list of settings, 1,860 rows
ENVIRON = {
    "PERFSTREAM_STORE_PASSWORD": OWNER[1],
    "PERFSTREAM_STORE_READER_USERNAME": READER[0],
    "PERFSTREAM_STORE_READER_PASSWORD": READER[1],
    "PERFSTREAM_STORE_READER_EXECUTION_S": "1.5",
    "PERFSTREAM_STORE_READER_MEMORY_BYTES": str(100 * MIB),
    "PERFSTREAM_STORE_READER_RESULT_ROWS": str(ROWS),
    "PERFSTREAM_STORE_READER_QUERIES": "2",
    "PERFSTREAM_STORE_QUEUE_TIMEOUT_S": "0.3",
    "PERFSTREAM_STORE_READER_QUERY_BYTES": "10000",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory, authority):
    """A store on https with an owner, a reader and small bounds."""
    from tests.integration.conftest import start_store

    certificate, key = authority.certificate("store")
    environ = ENVIRON | {"PERFSTREAM_STORE_CERT_FILE": str(certificate), "PERFSTREAM_STORE_KEY_FILE": str(key)}
    # Whatever the environment says, the engine's temporary files are in the store's own directory.
    environ |= {"TMPDIR": "/nowhere", "TMP": "/nowhere", "TEMP": "/nowhere"}
    tls = ssl.create_default_context(cafile=authority.file)
    running = start_store(tmp_path_factory.mktemp("secure") / "data", environ=environ, tls=tls)
    as_owner = {"X-ClickHouse-User": OWNER[0], "X-ClickHouse-Key": OWNER[1]}
    running.post("CREATE TABLE kept (a UInt64) ENGINE = MergeTree ORDER BY a", headers=as_owner)
    running.post(f"INSERT INTO kept SELECT number FROM numbers({ROWS})", headers=as_owner)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def ask(secure):
    """Send one statement: ``ask(query, user=READER, **parameters)`` gives (code, text); code 0 when all is well."""

    def call(query, user=READER, headers=None, **parameters):
        connection = http.client.HTTPSConnection("127.0.0.1", secure.port, timeout=60, context=secure.tls)
        with contextlib.closing(connection):
            given = {"X-ClickHouse-User": user[0], "X-ClickHouse-Key": user[1], **(headers or {})}
            connection.request("POST", "/?" + urlencode(parameters), body=query.encode(), headers=given)
            with connection.getresponse() as response:
                return int(response.headers.get("X-ClickHouse-Exception-Code", 0)), response.read().decode()

    return call


def test_clients_verify_the_certificate(secure, authority, tmp_path):
    given = {"username": OWNER[0], "password": OWNER[1], "interface": "https", "port": secure.port}
    client = clickhouse_connect.get_client(host="127.0.0.1", ca_cert=str(authority.file), **given)
    assert client.query("SELECT sum(a) FROM kept").result_rows == [(ROWS * (ROWS - 1) // 2,)]
    client.command("CREATE TABLE wide (a UInt64) ENGINE = Memory")
    client.insert("wide", [[n] for n in range(100_003)], column_names=["a"])
    assert client.query("SELECT * FROM wide ORDER BY a").row_count == 100_003
    close(client)
    stranger = Authority(tmp_path / "stranger")
    with (
        closing(httputil.get_pool_manager(ca_cert=str(stranger.file))) as pool,
        pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        clickhouse_connect.get_client(host="127.0.0.1", pool_mgr=pool, **given)
    with (
        closing(httputil.get_pool_manager(ca_cert=str(authority.file))) as pool,
        pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"),
    ):
        clickhouse_connect.get_client(host="127.0.0.1", pool_mgr=pool, **(given | {"password": "canary-wrong"}))
    gc.collect()


@contextlib.contextmanager
def closing(pool):
    """A pool of connections; the driver leaves them open when it cannot make a client."""
    try:
        yield pool
    finally:
        pool.clear()
        httputil.all_managers.pop(pool, None)


def test_a_client_that_never_ends_its_handshake_holds_nobody_up(secure, ask):
    with (
        socket.create_connection(("127.0.0.1", secure.port)) as mute,
        socket.create_connection(("127.0.0.1", secure.port)) as plain,
    ):
        plain.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Ok." not in plain.recv(100)
        assert ask("SELECT 1") == (0, "1\n")
        mute.sendall(b"\x16")
        assert ask("SELECT 1") == (0, "1\n")
    assert secure.process.poll() is None


def test_a_client_that_goes_ends_its_statement_over_tls(secure, ask):
    query = "SELECT max(sipHash64(number)) FROM numbers(1000000000000)"
    raw = socket.create_connection(("127.0.0.1", secure.port))
    client = secure.tls.wrap_socket(raw, server_hostname="127.0.0.1")
    key = f"X-ClickHouse-User: {OWNER[0]}\r\nX-ClickHouse-Key: {OWNER[1]}\r\n"
    client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{key}Content-Length: {len(query)}\r\n\r\n{query}".encode())
    running = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT max(sipHash64%'"
    try:
        wait_for(lambda: ask(running, OWNER) == (0, "1\n"))
    finally:
        client.close()
    wait_for(lambda: ask(running, OWNER) == (0, "0\n"), 8)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"CERT_FILE": "/nowhere.pem"}, "store.cert_file /nowhere.pem with store.key_file (the same file) cannot be"),
        ({"CERT_FILE": __file__, "KEY_FILE": __file__}, "cannot be used"),
        ({"HOST": "0.0.0.0", "PASSWORD": "canary-x"}, "PERFSTREAM_STORE_ALLOW_PLAIN_HTTP"),
        ({"HOST": "0.0.0.0", "CERT_FILE": __file__}, "PERFSTREAM_STORE_PASSWORD"),
    ],
)
def test_a_store_that_would_be_open_does_not_start(tmp_path, environ, words):
    given = {f"PERFSTREAM_STORE_{name}": value for name, value in environ.items()}
    code, lines = refusal("--path", tmp_path / "data", "--port", free_port(), environ=given)
    assert (code, len(lines)) == (1, 1)
    assert words in lines[0]
    assert "canary" not in lines[0]


def test_plain_http_beyond_loopback_is_a_setting_that_is_said(start):
    store = start("open", environ={
        "PERFSTREAM_STORE_HOST": "0.0.0.0", "PERFSTREAM_STORE_PASSWORD": OWNER[1],
        "PERFSTREAM_STORE_ALLOW_PLAIN_HTTP": "true",
    })  # fmt: skip
    lines = [json.loads(line) for line in store.log.read_text().splitlines()]
    assert [line["level"] for line in lines if "allow_plain_http" in line["message"]] == ["warning"]
    assert OWNER[1] not in store.log.read_text()


ONLY_READING = [
    "INSERT INTO kept VALUES (1)", "INSERT INTO kept SELECT 1", "DROP TABLE kept", "SET max_threads = 1", "USE system",
    "CREATE TABLE own (a UInt8) ENGINE = Memory", "CREATE TEMPORARY TABLE own (a UInt8)", "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1", "ALTER TABLE kept DELETE WHERE 1", "TRUNCATE TABLE kept", "OPTIMIZE TABLE kept FINAL",
    "SHOW PROCESSLIST", "BACKUP TABLE kept TO Disk('a', 'b')", "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS readonly = 0", "SELECT 1 SETTINGS max_execution_time = 0, max_result_rows = 0",
    "CREATE USER x", "GRANT ALL ON *.* TO grafana", "DETACH TABLE kept",
    "CREATE FUNCTION f AS (x) -> x", "KILL MUTATION WHERE 1", "ATTACH TABLE kept", "SET ROLE ALL",
]  # fmt: skip
OTHERS = [
    "SELECT * FROM system.processes", "SELECT * FROM `system`.`processes`", 'SELECT * FROM "system"."processes"',
    "SELECT * FROM `s\\x79stem`.processes", "SELECT * FROM system /* x */ . -- y\n processes",
    "SELECT 1 IN (SELECT 1 FROM system.processes)", "SELECT 1 IN system.processes", "SELECT * FROM system.query_cache",
    "SELECT * FROM (SELECT * FROM system.stack_trace)", "WITH x AS (SELECT * FROM system.errors) SELECT * FROM x",
    "SELECT * FROM merge('system', 'processes')", "SELECT * FROM merge(REGEXP('sys.*'), 'processes')",
    "SELECT * FROM `merge`('system', 'processes')", "SELECT $a$'$a$, * FROM system.processes WHERE '' = ''",
    "SELECT * FROM view(SELECT * FROM system.processes)", "EXPLAIN SELECT * FROM system.processes",
    "DESCRIBE system.processes", "SHOW CREATE TABLE system.processes", "EXISTS TABLE system.processes",
    "SELECT * FROM kept JOIN system.processes ON 1 = 1", "SELECT * FROM kept UNION ALL SELECT 1 FROM system.processes",
    "DESCRIBE url('http://127.0.0.1:1/', 'CSV')", "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1', system.one)", "SELECT * FROM loop(system.one)", "SELECT * FROM python(ENVIRON)",
    "SELECT * FROM eval('SELECT 1')", "SELECT file('x')", "SELECT * FROM file('x', 'CSV', 'a String')",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/k', 'CSV', 'a String')", "SELECT * FROM dictionary('x')",
    "SELECT * FROM executable('x', 'CSV', 'a Int8')", "SELECT 1 IN url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM system.processes))",
]  # fmt: skip


@pytest.mark.parametrize("query", ONLY_READING)
def test_the_reader_changes_nothing(ask, query):
    code, text = ask(query)
    assert code in (164, 452, 62), text
    for parameters in ({"session_id": "s"}, {"readonly": "0"}):
        assert ask(query, **parameters)[0] in (164, 452, 62)
    assert ask("SELECT count() FROM kept") == (0, f"{ROWS}\n")


@pytest.mark.parametrize("query", OTHERS)
def test_the_reader_sees_nothing_of_others_and_reaches_nothing_outside(ask, query):
    code, text = ask(query)
    assert code == 497, text


@pytest.mark.parametrize("tail", ["SELECT * FROM system.processes", "SELECT 2", "SET readonly = 0", "DROP TABLE kept"])
def test_the_reader_sends_one_statement(ask, tail):
    for query in (f"SELECT 1; {tail}", f"SELECT '\\'' ; -- '\n {tail}", f"SELECT 1 /* ' */; {tail}"):
        code, text = ask(query)
        assert code == 62, text
    assert ask("SELECT 1 ;") == (0, "1\n")


def test_the_readers_parameters_name_no_table_of_others(ask):
    assert ask("SELECT count() FROM {t:Identifier}", param_t="kept") == (0, f"{ROWS}\n")
    assert ask("SELECT * FROM {t:Identifier}", param_t="system.processes")[0] == 497
    assert ask("SELECT * FROM {d:Identifier}.{t:Identifier}", param_d="system", param_t="processes")[0] == 497
    assert ask("SELECT * FROM processes", database="system")[0] == 497
    assert ask("SELECT * FROM processes", headers={"X-ClickHouse-Database": "system"})[0] == 497


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 1", 159),
        ("SELECT length(groupArray(number)) FROM numbers(100000000)", 241),
        (f"SELECT number FROM numbers({ROWS + 1})", 396),
        ("SELECT a + 1 FROM kept UNION ALL SELECT 1", 396),
        ("SELECT a FROM kept UNION ALL SELECT 1 FORMAT JSON", 396),
    ],
)
def test_the_readers_limits_cannot_be_raised(ask, query, code):
    raised = {"max_execution_time": "0", "max_memory_usage": "0", "max_result_rows": "0"}
    higher = {"max_execution_time": "300", "max_memory_usage": str(1 << 40), "max_result_rows": "1e9"}
    odd = {"max_execution_time": "nan", "max_memory_usage": "-1", "max_result_rows": "inf"}
    for parameters in ({}, raised, higher, odd, higher | {"session_id": "limits"}):
        began = time.monotonic()
        if code == 159 and parameters in (raised, odd):
            continue  # each takes its 1.5 s
        found, text = ask(query, **parameters)
        assert found == code, text
        assert time.monotonic() - began < 6
    assert ask("SELECT number FROM numbers(11)", max_result_rows="10")[0] == 396


@pytest.mark.parametrize(
    "name",
    ["max_memory_usage_for_user", "result_overflow_mode", "timeout_overflow_mode", "log_comment", "profile",
     "compatibility", "dialect", "max_parser_depth", "timeout_before_checking_execution_speed",
     "allow_introspection_functions", "format_schema"],
)  # fmt: skip
def test_settings_that_a_reader_may_not_choose(ask, name):
    assert ask("SELECT 1", **{name: "1"})[0] == 452


def test_readers_have_a_share_of_the_places(ask):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask("SELECT sleepEachRow(0.3) FROM numbers(5)")[0]))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    assert ask("SELECT 1", OWNER) == (0, "1\n")
    for thread in threads:
        thread.join()
    assert answers.count(202) == 3


def test_a_long_statement_of_a_reader(ask):
    assert ask("SELECT '" + "x" * 10_000 + "'")[0] == 229


def test_what_grafana_and_clients_ask_a_reader(secure, authority, ask):
    for query in (
        "SELECT name FROM system.databases ORDER BY name", "SELECT name, type FROM system.columns WHERE table = 'kept'",
        "SHOW TABLES", "SHOW DATABASES", "DESCRIBE TABLE kept", "EXISTS TABLE kept", "EXPLAIN SELECT * FROM kept",
        "SELECT format('{}', 'x')", "(SELECT 1)", "WITH 1 AS a SELECT a", "SELECT 1 FORMAT JSON", "SELECT 1 -- end",
        "SELECT table, sum(rows) FROM system.parts WHERE active GROUP BY table",
        "SELECT 'SELECT * FROM system.processes; DROP TABLE kept'",
    ):  # fmt: skip
        code, text = ask(query)
        assert code == 0, (query, text)
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=secure.port, interface="https", ca_cert=str(authority.file),
        username=READER[0], password=READER[1],
    )  # fmt: skip
    rows = client.query("SELECT a FROM kept WHERE a < {n:UInt64} ORDER BY a", parameters={"n": 13}).result_rows
    assert rows == [(n,) for n in range(13)]
    with pytest.raises(DatabaseError, match="READONLY"):
        client.command("DROP TABLE kept")
    close(client)


def test_our_own_commands_over_https(secure, authority, ask):
    """The tables are made by the owner; the reading commands and every query of the dashboards need the reader only."""
    dsn = f"https://127.0.0.1:{secure.port}/perfstream"
    common = {"PERFSTREAM_CLICKHOUSE_DSN": dsn, "PERFSTREAM_CLICKHOUSE_CA_CERT": str(authority.file)}
    owner = common | {"PERFSTREAM_CLICKHOUSE_USERNAME": OWNER[0], "PERFSTREAM_CLICKHOUSE_PASSWORD": OWNER[1]}
    reader = common | {"PERFSTREAM_CLICKHOUSE_USERNAME": READER[0], "PERFSTREAM_CLICKHOUSE_PASSWORD": READER[1]}
    code, out, err = command(owner, "migrate")
    assert (code, err) == (0, ""), err
    assert out.startswith("applied ")
    for arguments in (("types",), ("top",), ("latency",), ("events",)):
        code, out, err = command(reader, "profile", *arguments, "--format", "json")
        assert (code, json.loads(out)) == (0, []), err
    code, out, _err = command(reader, "dashboards", "check", "--format", "json")
    results = json.loads(out)
    assert [result for result in results if result["state"] == "ERROR"] == []
    assert len(results) > 20
    for changed, words in (
        ({"PERFSTREAM_CLICKHOUSE_PASSWORD": "canary-wrong"}, "password is incorrect"),
        ({"PERFSTREAM_CLICKHOUSE_CA_CERT": ""}, "certificate"),
    ):
        for arguments in (("migrate",), ("profile", "top")):
            code, out, err = command(owner | changed, *arguments)
            assert (code, out, err.count("\n")) == (1, "", 1), err
            assert "canary" not in err
            assert words in err.lower(), err


def test_temporary_files_are_the_stores_own(secure):
    assert (secure.path / "tmp").is_dir()
    if b"TMPDIR=/nowhere" not in Path(f"/proc/{secure.process.pid}/environ").read_bytes():
        pytest.fail("the test set no TMPDIR")


def test_no_secret_is_shown(secure, ask):
    ask("SELECT nonsense", user=("grafana", "canary-guess"))
    ask("SELECT nonsense")
    texts = [secure.log.read_text(), Path(f"/proc/{secure.process.pid}/cmdline").read_text()]
    for path in ("metrics", "healthz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{secure.observe_port}/{path}", timeout=10) as answer:
            texts.append(answer.read().decode())
    assert not [text for text in texts if "canary" in text]
