"""The store as a process: readers beside a big insert, crashes and restarts, what it refuses, what it cannot reach."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deploy.broker import free_port

pytestmark = pytest.mark.services
ROOT = Path(__file__).parents[2]
REMEMBERING = "(a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100"
# Root without any capability is anybody: it may open what its owner may.
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def refusal(*arguments, environ=None, prefix=()):
    """Run a store that cannot start; return its exit code and the lines on standard error."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PERFSTREAM_")} | (environ or {})
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "deploy.cli", "store", *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def number(store, query, **parameters):
    return int(store.post(query, **parameters))


def error_of(store, query):
    with pytest.raises(urllib.error.HTTPError) as error:
        store.post(query)
    with error.value as answer:
        return answer.headers["X-ClickHouse-Exception-Code"], answer.read().decode()


def rows(count, size=100_000):
    """Yield ``count`` rows of a UInt64 as RowBinary, in chunks; each chunk counts on from the last."""
    import numpy as np

    for begin in range(0, count, size):
        yield np.arange(begin, min(begin + size, count), dtype="<u8").tobytes()


def insert(store, table, body, **parameters):
    return store.post(f"INSERT INTO {table} FORMAT RowBinary", body=body, timeout=120, **parameters)


def test_readers_go_on_while_a_big_insert_runs(store, database):
    table = f"{database}.big"
    store.post(f"CREATE TABLE {table} (a UInt64) ENGINE = MergeTree ORDER BY a")
    insert(store, table, b"".join(rows(1009)))
    writer = threading.Thread(target=insert, args=(store, table, rows(10_000_000)))
    writer.start()
    times = []
    while writer.is_alive():
        began = time.monotonic()
        assert number(store, f"SELECT count() FROM {table} WHERE a < 1009") >= 1009
        times.append(time.monotonic() - began)
    writer.join()
    assert number(store, f"SELECT count() FROM {table}") == 10_001_009
    assert len(times) >= 5
    assert max(times) < 1.0


def test_a_deduplication_token_counts_once(store, database):
    table = f"{database}.once"
    store.post(f"CREATE TABLE {table} {REMEMBERING}")
    for token in ("raw:0:1-2", "raw:0:1-2", "raw:0:3-4", "raw:0:1-2"):
        insert(store, table, b"".join(rows(1009)), insert_deduplication_token=token)
    assert number(store, f"SELECT count() FROM {table}") == 2 * 1009


@pytest.mark.parametrize("variables", range(30, 90, 9))
def test_it_starts_whatever_the_size_of_its_environment(start, variables):
    """The engine once looked for the kernel's auxiliary vector behind the environment, and met something else."""
    store = start("data", environ={f"X{number}": "y" * number for number in range(variables)})
    assert store.post("SELECT 1").strip() == b"1"


def test_sigterm_in_the_middle_and_the_data_is_there_again(start):
    store = start("data", prefix=UNPRIVILEGED)
    store.post("CREATE DATABASE kept")
    for name in ("kept.a", "default.b"):
        store.post(f"CREATE TABLE {name} (a UInt64) ENGINE = MergeTree ORDER BY a")
        insert(store, name, b"".join(rows(10_007)))
    running = threading.Thread(target=ends_somehow, args=(store, "SELECT count() FROM numbers(1000000000000)"))
    running.start()
    wait_for(lambda: number(store, "SELECT count() FROM system.processes WHERE query LIKE '%1000000000000%'") > 1)
    began = time.monotonic()
    store.stop()
    assert time.monotonic() - began < 7
    assert store.process.returncode == 0
    running.join(20)
    assert not running.is_alive()
    assert json.loads(store.log.read_text().splitlines()[-1])["message"] == "stopped"
    again = start("data", prefix=UNPRIVILEGED)
    for name in ("kept.a", "default.b"):
        assert number(again, f"SELECT sum(a) FROM {name}") == 10_007 * 10_006 // 2


def ends_somehow(store, query):
    with contextlib.suppress(OSError):
        try:
            store.post(query)
        except urllib.error.HTTPError as error:
            error.close()


def wait_for(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigkill_during_inserts(start):
    """What was acknowledged stays; an insert that was not has whole blocks or nothing; with its token it lands once."""
    store = start("data")
    store.post(f"CREATE TABLE t {REMEMBERING}")
    block = b"".join(rows(10_007))
    one_block = {"max_insert_block_size": 1_000_000, "min_insert_block_size_rows": 0, "min_insert_block_size_bytes": 0}
    acknowledged = 0
    for turn in range(3):
        done = []

        def write(target=store, turn=turn, done=done):
            while True:
                try:
                    insert(target, "t", block, insert_deduplication_token=f"{turn}-{len(done)}", **one_block)
                except OSError as error:
                    if isinstance(error, urllib.error.HTTPError):
                        error.close()
                    return
                done.append(turn)

        writer = threading.Thread(target=write)
        writer.start()
        wait_for(lambda done=done: len(done) >= 3)
        time.sleep(random.random() * 0.02)
        os.killpg(store.process.pid, signal.SIGKILL)
        store.process.wait()
        writer.join(20)
        store = start("data")
        acknowledged += len(done)
        found = number(store, "SELECT count() FROM t")
        assert found in (acknowledged * 10_007, (acknowledged + 1) * 10_007)
        insert(store, "t", block, insert_deduplication_token=f"{turn}-{len(done)}", **one_block)
        acknowledged += 1
        assert number(store, "SELECT count() FROM t") == acknowledged * 10_007
    assert number(store, "SELECT sum(a) FROM t") == acknowledged * (10_007 * 10_006 // 2)
    assert number(store, "CHECK TABLE t SETTINGS check_query_single_value_result = 1") == 1


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines = refusal("--path", tmp_path / "data", "--port", port)
    assert (code, len(lines)) == (1, 1)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port" in lines[0]


def test_directory_in_use(store):
    code, lines = refusal("--path", store.path, "--port", free_port())
    assert (code, len(lines)) == (1, 1)
    assert "another process has the store" in lines[0]
    assert number(store, "SELECT 1") == 1


def test_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "fixed").mkdir(mode=0o500)
    for path, reason in (
        (tmp_path / "fixed", "Permission denied"), (tmp_path / "fixed" / "below", "Permission denied"),
        (tmp_path / "file" / "below", "Not a directory"), (Path("/proc/below"), "No such file or directory"),
    ):  # fmt: skip
        code, lines = refusal("--path", path, prefix=UNPRIVILEGED)
        assert (code, len(lines)) == (1, 1), lines
        assert f"cannot write to the store's directory {path}: {reason}; choose another --path" in lines[0]


def test_settings_that_are_refused():
    code, lines = refusal("--host", "0.0.0.0")
    assert (code, len(lines)) == (1, 1)
    assert "PERFSTREAM_STORE_PASSWORD" in lines[0]
    code, lines = refusal(environ={"PERFSTREAM_STORE_PORT": "many"})
    assert (code, len(lines)) == (1, 1)
    assert "PERFSTREAM_STORE_PORT" in lines[0]


def test_sql_reaches_the_stores_own_files_only(start, tmp_path):
    store = start("data", environ={"SOME_TOKEN": "secret\n", "PERFSTREAM_STORE_MINIMUM_FREE_BYTES": "1000"})
    wait_for(lambda: '"confined": true' in store.log.read_text())
    # The engine looks into its threads' files at every statement, where their environment stands too.
    shown = b"".join(path.read_bytes() for path in Path(f"/proc/{store.process.pid}/task").glob("*/environ"))
    assert b"PATH=" in shown
    assert b"TOKEN" not in shown
    assert b"PERFSTREAM_STORE" not in shown
    store.post("CREATE TABLE counted (a UInt8) ENGINE = MergeTree ORDER BY a")
    store.post("INSERT INTO counted VALUES (1)")
    assert store.post("SELECT sum(value) FROM system.errors WHERE name = 'CANNOT_OPEN_FILE'").strip() in ("0", b"0")
    assert store.post("SELECT length(file('/proc/thread-self/mem'))").strip() in ("0", b"0")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret\n")
    for query in (
        f"SELECT * FROM file('{outside}/secret', 'LineAsString')", f"SELECT file('{outside}/secret')",
        "SELECT file('/proc/self/environ')", "SELECT file('/etc/passwd')", f"SELECT * FROM `{outside}/secret`",
        f"INSERT INTO FUNCTION file('{outside}/new', 'CSV', 'a UInt8') SELECT 1",
        f"ATTACH TABLE t FROM '{outside}' (a UInt8) ENGINE = MergeTree ORDER BY a",
        f"CREATE TABLE t ENGINE = File('CSV', '{outside}/new') AS SELECT 1 AS a",
        f"SELECT 1 INTO OUTFILE '{outside}/new'",
    ):  # fmt: skip
        code, text = error_of(store, query)
        assert "secret\n" not in text
        assert code, query
    assert sorted(outside.iterdir()) == [outside / "secret"]


def test_health_and_metrics(start):
    store = start("data", environ={"PERFSTREAM_STORE_MINIMUM_FREE_BYTES": str(1 << 60)})
    store.post("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    insert(store, "t", b"".join(rows(1009)))
    error_of(store, "SELEC")
    with urllib.request.urlopen(f"http://127.0.0.1:{store.observe_port}/metrics", timeout=10) as answer:
        found = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    assert float(found["perfstream_store_insert_rows_total"]) == 1009
    assert float(found["perfstream_store_insert_bytes_total"]) == 8 * 1009
    assert float(found['perfstream_store_errors_total{code="62"}']) == 1
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"http://127.0.0.1:{store.observe_port}/healthz", timeout=10)
    with error.value as answer:
        assert "MiB free" in json.loads(answer.read())["checks"]["disk"]


def test_a_kill_between_the_token_and_the_rows_does_not_lose_the_repeat(start):
    """The engine logs an insert's token before it makes the rows visible; this is what a SIGKILL between leaves."""
    store = start()
    store.post("CREATE DATABASE x")
    store.post("CREATE TABLE x.t (a Int32) ENGINE = MergeTree ORDER BY a SETTINGS "
               "non_replicated_deduplication_window = 100")  # fmt: skip

    def insert(running, number):
        running.post(f"INSERT INTO x.t SETTINGS insert_deduplication_token = 'k{number}' VALUES ({number})")

    for number in (1, 2, 3):
        insert(store, number)
    store.process.kill()
    store.process.wait()
    (part,) = store.path.glob("store/*/*/all_3_3_0")
    part.rename(part.with_name("tmp_insert_all_3_3_0"))
    again = start(port=store.port)
    for number in (1, 2, 3, 3):
        insert(again, number)
    assert again.post("SELECT groupArray(a) FROM (SELECT a FROM x.t ORDER BY a)") == b"[1,2,3]\n"
