"""The store as clickhouse-connect, curl and plain HTTP see it."""

import clickhouse_connect
import pytest

pytestmark = pytest.mark.services


def test_client_round_trip(store, database):
    with clickhouse_connect.get_client(dsn=store.dsn, database=database) as client:
        client.command("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
        client.insert("t", [[1, "x"], [2, "y"]], column_names=["a", "b"])
        assert client.query("SELECT a, b FROM t ORDER BY a").result_rows == [(1, "x"), (2, "y")]
        assert client.command("SELECT currentDatabase()") == database
