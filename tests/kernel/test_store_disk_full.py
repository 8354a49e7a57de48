"""The store on a disk that fills up: no insert is called stored that is not, nothing is corrupt, no hands needed."""

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.conftest import start_store
from tests.kernel.disk import kept_full, mounted

ROWS = 5003


@pytest.fixture
def store(tmp_path):
    """A store whose directory is a file system of 200 MB."""
    with mounted(tmp_path / "disk", "200m") as disk:
        one = start_store(disk / "data", environ={"PERFSTREAM_STORE_MINIMUM_FREE_BYTES": str(16 << 20)})
        try:
            one.disk = disk
            yield one
        finally:
            if one.process.poll() is None:
                one.stop()


def insert(store, number, table="full.rows"):
    """Insert rows under a token; returns 0, or the error's code."""
    rows = b"\n".join(b"%d" % (number * ROWS + row) for row in range(ROWS)) + b"\n"
    query = f"INSERT INTO {table} FORMAT TSV"
    try:
        store.post(query, rows, insert_deduplication_token=f"t{number}", async_insert=0)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.headers["X-ClickHouse-Exception-Code"])
    return 0


def disk_is_said_to_be(store):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{store.observe_port}/healthz", timeout=5) as answer:
            return json.load(answer)["checks"]["disk"]
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)["checks"]["disk"]


def make(store):
    store.post("CREATE DATABASE full")
    store.post(
        "CREATE TABLE full.rows (a UInt64, CONSTRAINT small CHECK a < 1000000000) ENGINE = MergeTree ORDER BY a "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )


def test_what_is_said_to_be_stored_is_and_what_is_refused_can_be_repeated(store):
    make(store)
    assert insert(store, 0) == 0
    with kept_full(store.disk), ThreadPoolExecutor(4) as pool:
        # At the same time, so that one error's trace covers another's.
        refused = list(pool.map(lambda number: insert(store, number), range(1, 17)))
        assert set(refused) == {243}, refused
        assert store.post("SELECT count() FROM full.rows") == b"%d\n" % ROWS  # reading needs no room
    again = [insert(store, number) for number in range(17)]
    assert again == [0] * 17
    counted = store.post("SELECT count(), uniqExact(a), sum(a) FROM full.rows").split()
    rows = 17 * ROWS
    assert counted == [b"%d" % rows, b"%d" % rows, b"%d" % (rows * (rows - 1) // 2)]
    parts = store.post("CHECK TABLE full.rows").splitlines()
    assert {part.split(b"\t")[1] for part in parts} == {b"1"}


def test_healthz_says_so_and_a_restart_finds_everything(store):
    make(store)
    insert(store, 0)
    with kept_full(store.disk):
        deadline = time.monotonic() + 15
        while "MiB free" not in disk_is_said_to_be(store):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert insert(store, 1) == 243
        store.process.kill()
        store.process.wait()
    again = start_store(store.path, port=store.port)
    try:
        assert again.post("SELECT count() FROM full.rows") == b"%d\n" % ROWS
        assert (insert(again, 1), insert(again, 1)) == (0, 0)
        assert again.post("SELECT count() FROM full.rows") == b"%d\n" % (2 * ROWS)
    finally:
        again.stop()


def test_rows_that_break_a_constraint_are_an_error_and_nobody_elses(store):
    make(store)
    with pytest.raises(urllib.error.HTTPError) as refused:
        store.post("INSERT INTO full.rows FORMAT TSV", b"1\n2000000000\n")
    with refused.value as error:
        assert error.headers["X-ClickHouse-Exception-Code"] == "469"
        assert b"small" in error.read()
    assert store.post("SELECT count() FROM full.rows") == b"0\n"
    assert insert(store, 0) == 0
