"""The store as clients see it: clickhouse-connect, and clickhouse-go, on which Grafana's data source is built."""

import datetime as dt
import decimal
import gc
import ipaddress
import shutil
import subprocess
import uuid
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

pytestmark = pytest.mark.services
GO = Path(__file__).parents[1] / "programs" / "clickhouse_go"


@pytest.fixture
def client(store, database):
    with clickhouse_connect.get_client(dsn=store.dsn, database=database) as made:
        yield made


COLUMNS = {
    "id": ("UInt64", list(range(1009))),
    "text": ("String", [f"text {n} é\n\\'" for n in range(1009)]),
    "low": ("LowCardinality(String)", [f"low {n % 7}" for n in range(1009)]),
    "none": ("Nullable(Int32)", [None if n % 3 else -n for n in range(1009)]),
    "list": ("Array(Array(String))", [[["a"] * (n % 4), []] for n in range(1009)]),
    "pairs": ("Map(LowCardinality(String), UInt64)", [{"k": n, "l": 1} for n in range(1009)]),
    "both": ("Tuple(Int8, String)", [(n % 100, "x") for n in range(1009)]),
    "kind": ("Enum8('a' = 1, 'b' = -2)", ["ab"[n % 2] for n in range(1009)]),
    "day": ("Date", [dt.date(2024, 1, 1 + n % 31) for n in range(1009)]),
    "price": ("Decimal(18, 4)", [decimal.Decimal(n) / 8 for n in range(1009)]),
    "key": ("UUID", [uuid.UUID(int=n) for n in range(1009)]),
    "address": ("IPv4", [ipaddress.IPv4Address(n) for n in range(1009)]),
    "wide": ("UInt256", [1 << (n % 255) for n in range(1009)]),
    "ratio": ("Float64", [n / 3 for n in range(1009)]),
    "yes": ("Bool", [n % 2 == 0 for n in range(1009)]),
}


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_type_comes_back(store, database, compress):
    """Native blocks both ways, in each compression."""
    with clickhouse_connect.get_client(dsn=store.dsn, database=database, compress=compress) as client:
        columns = ", ".join(f"{name} {kind}" for name, (kind, _values) in COLUMNS.items())
        client.command(f"CREATE TABLE t ({columns}) ENGINE = MergeTree ORDER BY id")
        values = [column for _kind, column in COLUMNS.values()]
        summary = client.insert("t", values, column_names=list(COLUMNS), column_oriented=True)
        assert summary.written_rows == 1009
        found = client.query("SELECT * FROM t ORDER BY id")
        assert found.column_names == tuple(COLUMNS)
        for name, ours, theirs in zip(COLUMNS, values, found.result_columns, strict=True):
            assert list(theirs) == ours, name


def test_many_blocks(client):
    assert len(client.query("SELECT number FROM numbers(300007)").result_set) == 300_007
    with client.query_column_block_stream("SELECT number FROM numbers(300007)") as stream:
        blocks = [block[0] for block in stream]
    assert len(blocks) > 1
    assert sum(sum(block) for block in blocks) == 300_007 * 300_006 // 2


def test_arrow(client):
    client.command("CREATE TABLE t (a UInt64, b LowCardinality(String)) ENGINE = MergeTree ORDER BY a")
    table = pa.table(
        {"a": pa.array(range(200_003), pa.uint64()), "b": pa.array(["x", None, "y"] * 66_667 + ["z"] * 2).fill_null("")}
    )
    client.insert_arrow("t", table)
    found = client.query_arrow("SELECT a, toString(b) AS b FROM t ORDER BY a", use_strings=True)
    assert found.cast(table.schema).equals(table)


def test_settings_and_parameters(client, database):
    assert client.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 1013}) == 1013
    values = {"a": "it's \\ a\ttext", "b": [1, 2], "c": dt.date(2024, 5, 6)}
    rows = client.query("SELECT {a:String}, {b:Array(UInt8)}, {c:Date}", parameters=values).result_rows
    assert rows == [tuple(values.values())]
    assert client.query("SELECT %s", parameters=("O'Neil",)).result_rows == [("O'Neil",)]
    assert client.command("SELECT currentDatabase()") == database


def test_sessions(store, database):
    with (
        clickhouse_connect.get_client(dsn=store.dsn, database=database, session_id=f"{database}-1") as one,
        clickhouse_connect.get_client(dsn=store.dsn, database=database, session_id=f"{database}-2") as other,
    ):
        one.command("CREATE TEMPORARY TABLE mine (a UInt64)")
        # One request after the other, as fast as they go: none may find the session still taken.
        for number in range(50):
            one.insert("mine", [[number]], column_names=["a"])
        assert one.command("SELECT sum(a) FROM mine") == 49 * 50 // 2
        one.command("SET max_block_size = 1019")
        assert one.command("SELECT getSetting('max_block_size')") == 1019
        with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
            other.command("SELECT sum(a) FROM mine")


# The client forgets to close the connection of an answer that broke off; it is collected here, and not in another test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_errors_have_their_code(client):
    for query, name in (("SELEC 1", "SYNTAX_ERROR"), ("SELECT * FROM none", "UNKNOWN_TABLE")):
        with pytest.raises(DatabaseError, match=name):
            client.query(query)
    with pytest.raises(DatabaseError, match="FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"):
        client.query("SELECT throwIf(number = 2000000) FROM numbers(3000000)")
    gc.collect()


def test_raw(client):
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    client.raw_insert("t", insert_block=b'{"a": 1}\n{"a": 2}\n', fmt="JSONEachRow")
    assert client.raw_query("SELECT a FROM t ORDER BY a", fmt="CSV") == b"1\n2\n"


@pytest.fixture(scope="module")
def go_program(tmp_path_factory):
    assert shutil.which("go"), "this test needs Go"
    binary = tmp_path_factory.mktemp("go") / "clickhouse_go"
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=GO, check=True, timeout=280)
    return binary


def test_clickhouse_go(store, database, go_program):
    """Values of every kind, errors and parameters over HTTP in each compression; the program compares and reports."""
    done = subprocess.run(
        [go_program, f"127.0.0.1:{store.port}", database], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split("\n")) == sorted(
        [*(f"{m} ok" for m in ("none", "lz4", "zstd", "gzip", "deflate")), ""]
    )
