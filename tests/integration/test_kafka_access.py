"""Every client of ours at a broker that wants passwords (SCRAM) or certificates (mutual TLS), by settings alone."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from collectors.publisher import Publisher
from collectors.spool import Spool
from deploy.broker import free_port
from runtime.settings import ClickHouseSettings, KafkaSettings, Secret, load
from sinks.migrate import migrate
from streams.schema import stack_columns, stacks
from streams.schema.messages import PROFILE
from streams.schema.topics import HOTSPOTS, RAW_PROFILES
from streams.settings import WorkerSettings
from tests.integration.secure_kafka import PASSWORD, PROCESSES, Authority, SecureBroker

pytestmark = pytest.mark.services
ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
ROWS = 1009
BAD = "wrong-canary-91ab"


class Site:
    """The broker, its authority, a stranger's authority, and what each process must be set to."""

    def __init__(self, directory):
        self.authority = Authority(directory / "ca")
        self.stranger = Authority(directory / "stranger")
        self.broker = SecureBroker(directory / "kafka", self.authority)
        self.certificates = {name: self.authority.certificate(name) for name in PROCESSES}

    def settings(self, protocol, user, **changed):
        """The settings as a process's environment."""
        common = {"security_protocol": protocol, "ssl_cafile": self.authority.file}
        if protocol == "SSL":
            certificate, key = self.certificates[user]
            common |= {"bootstrap_servers": f"127.0.0.1:{self.broker.tls_port}"}
            common |= {"ssl_certfile": certificate, "ssl_keyfile": key}
        else:
            common |= {"bootstrap_servers": f"127.0.0.1:{self.broker.sasl_port}"}
            common |= {"sasl_username": user, "sasl_password": PASSWORD}
        return {f"PERFSTREAM_KAFKA_{name.upper()}": str(value) for name, value in (common | changed).items()}

    def kafka(self, *arguments, **changed) -> KafkaSettings:
        return load(WorkerSettings, environ=self.settings(*arguments, **changed)).kafka


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("secure"))
    made.broker.start()
    yield made
    made.broker.stop()


@pytest.fixture
def spawn(tmp_path):
    """Start ``perfstream NAME`` with an environment: ``spawn(name, environ)``; ended after the test."""
    running = []

    def begin(name, environ, *arguments):
        port = free_port()
        given = environment(environ | {"PERFSTREAM_HTTP_PORT": str(port)})
        log = tmp_path / f"{name}-{port}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", name, *arguments],
                cwd=ROOT, env=given, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        process.port, process.log = port, log
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


def environment(given):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERFSTREAM_")}
    return kept | {"MALLOC_ARENA_MAX": "2"} | given


def command(environ, *arguments):
    """Run a command to its end; (exit code, standard output, standard error)."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments], cwd=ROOT, env=environment(environ),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def page(process, path):
    with contextlib.suppress(OSError):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/{path}", timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
    return ""


def ailing(process):
    """What ``/healthz`` says of Kafka."""
    text = page(process, "healthz")
    return json.loads(text)["checks"].get("kafka", "") if text else ""


async def until(condition, what="", timeout_s=40.0):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in time: {what() if callable(what) else what}"
        await asyncio.sleep(0.05)
    return found


def rows(start_ns):
    """A batch whose values sum up to ``ROWS * (ROWS + 1) / 2``."""
    text = stacks.join([stacks.frame_text("main"), stacks.frame_text("work", "a.go", 7)])
    known = {
        "time_ns": pa.array(np.full(ROWS, start_ns)),
        "stack": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(ROWS), pa.int32()),
            stack_columns.entries([text]),
        ),
        "value": pa.array(np.arange(1, ROWS + 1)),
        "period": pa.array(np.full(ROWS, 1)),
    }
    words = {"service": "shop", "type": "cpu", "unit": "nanoseconds"}
    for field in PROFILE:
        if field.name not in known:
            known[field.name] = pa.array([words.get(field.name, "")] * ROWS).dictionary_encode()
    return pa.RecordBatch.from_arrays([known[f.name].cast(f.type) for f in PROFILE], schema=PROFILE)


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SSL"])
async def test_rows_flow_from_the_publisher_to_the_store(site, spawn, store, database, tmp_path, protocol):
    """Each process has the rights that ``docs/security.md`` lists, and no more."""
    prefix, dsn = f"{database}.", f"{store.dsn}/{database}"
    await site.broker.grant(prefix, database)
    migrate(ClickHouseSettings(dsn=dsn))
    common = {"PERFSTREAM_TOPIC_PREFIX": prefix, "PERFSTREAM_CLICKHOUSE_DSN": dsn}
    code, out, err = command(site.settings(protocol, "topics") | common, "topics", "apply", "--partitions", "2")
    assert code == 0, err
    assert out.count("created") == 6
    code, out, err = command(site.settings(protocol, "topics") | common, "topics", "apply", "--partitions", "2")
    assert (code, out.count("as declared")) == (0, 6), err

    worker = spawn("worker", site.settings(protocol, "worker") | common | {
        "PERFSTREAM_WORKER_GROUP": f"{database}-worker", "PERFSTREAM_WORKER_DATADIR": str(tmp_path / "worker"),
    })  # fmt: skip
    sink = spawn("sink", site.settings(protocol, "sink") | common | {"PERFSTREAM_GROUP": f"{database}-sink"})
    spool = Spool(tmp_path / "spool", 1 << 24)
    publisher = Publisher(site.kafka(protocol, "agent"), spool, "c", "n", prefix)
    publisher.start()
    try:
        now = time.time_ns() // (60 * SECOND) * 60 * SECOND
        publisher.publish("cpu", "profile", rows(now), now, now + 10 * SECOND, ROWS)
        await until(lambda: publisher.acknowledged == 1, lambda: publisher.trouble)
        wanted = ROWS * (ROWS + 1) // 2

        def found():
            asked = ("sum(value) FROM samples", "sum(self) FROM hotspots_final")
            return [int(store.post(f"SELECT {what}", database=database)) for what in asked] == [wanted] * 2

        await until(found, lambda: worker.log.read_text()[-2000:] + sink.log.read_text()[-2000:])
    finally:
        publisher.close()
        spool.close()
    for process in (worker, sink):
        assert process.poll() is None
        text = process.log.read_text() + page(process, "metrics") + page(process, "healthz")
        assert PASSWORD not in text
        assert PASSWORD not in Path(f"/proc/{process.pid}/cmdline").read_text()  # noqa: ASYNC240 - not a disk
        assert "Authorization" not in text


REFUSALS = {
    "wrong password": ("SASL_SSL", {"sasl_password": BAD}, "it refuses the user or the password"),
    "strange authority": ("SASL_SSL", {"ssl_cafile": "{stranger}"}, "its certificate is not trusted"),
    "no certificate": ("SSL", {"ssl_certfile": "", "ssl_keyfile": ""}, "it may want a client certificate"),
    "no TLS": ("SASL_SSL", {"security_protocol": "PLAINTEXT"}, "check kafka.security_protocol"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_kafka_refuses_is_said_in_one_line_and_without_secrets(site, spawn, tmp_path, case, caplog):
    protocol, changed, reason = REFUSALS[case]
    changed = {name: value.format(stranger=site.stranger.file) for name, value in changed.items()}
    sink = spawn("sink", site.settings(protocol, "sink", **changed))
    spool = Spool(tmp_path / "spool", 1 << 24)
    publisher = Publisher(site.kafka(protocol, "agent", **changed), spool, "c", "n")
    publisher.start()
    try:
        done = [
            await asyncio.to_thread(command, site.settings(protocol, name, **changed), *arguments)
            for name, arguments in (("topics", ("topics", "apply")), ("worker", ("worker",)))
        ]
        await until(lambda: reason in publisher.trouble, lambda: publisher.trouble)
        await until(lambda: reason in ailing(sink), lambda: sink.log.read_text())
    finally:
        publisher.close(0)
        spool.close()
    for code, out, err in done:
        assert (code, out) == (1, "")
        ours = [line for line in err.splitlines() if not line.startswith("{")]  # the worker logs, too
        assert len(ours) == 1, err
        assert ours[0].startswith("perfstream: Kafka at 127.0.0.1:")
        assert reason in ours[0]
    texts = [sink.log.read_text(), page(sink, "metrics"), page(sink, "healthz"), publisher.trouble, caplog.text]
    for text in (*texts, *(err for _code, _out, err in done)):
        assert PASSWORD not in text
        assert BAD not in text
        assert "Traceback" not in text


async def read_one(consumer):
    await consumer.start()
    return await asyncio.wait_for(consumer.getone(), 10)


async def test_each_process_may_do_its_own_work_only(site, unique):
    prefix = f"{unique}."
    await site.broker.grant(prefix, unique)
    raw, hotspots = prefix + RAW_PROFILES.name, prefix + HOTSPOTS.name
    code, out, err = command(site.settings("SSL", "agent") | {"PERFSTREAM_TOPIC_PREFIX": prefix}, "topics", "apply")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot be created: CLUSTER_AUTHORIZATION_FAILED" in err or "TOPIC_AUTHORIZATION_FAILED" in err
    code, _out, err = command(site.settings("SSL", "topics") | {"PERFSTREAM_TOPIC_PREFIX": prefix}, "topics", "apply")
    assert code == 0, err
    for user, topic in (("agent", hotspots), ("worker", raw), ("sink", raw)):
        producer = AIOKafkaProducer(**site.kafka("SSL", user).client_options())
        await producer.start()
        try:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(topic, b"x")
        finally:
            await producer.stop()
    for user, group, expected in (
        ("agent", None, TopicAuthorizationFailedError),
        ("worker", f"{unique}-sink", GroupAuthorizationFailedError),
    ):
        consumer = AIOKafkaConsumer(raw, group_id=group, **site.kafka("SSL", user).client_options())
        try:
            with pytest.raises(expected):
                await read_one(consumer)
        finally:
            await consumer.stop()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ssl_cafile": "/nowhere/ca.pem"}, "kafka.ssl_cafile: /nowhere/ca.pem cannot be used: No such file"),
        ({"ssl_cafile": __file__}, "kafka.ssl_cafile"),
        ({"ssl_certfile": __file__, "ssl_keyfile": __file__}, "kafka.ssl_certfile, ssl_keyfile"),
        ({"security_protocol": "TLS"}, "kafka.security_protocol is none of PLAINTEXT, SSL"),
        ({"sasl_password": "", "security_protocol": "SASL_SSL"}, "PERFSTREAM_KAFKA_SASL_PASSWORD"),
    ],
)
def test_settings_that_cannot_work_are_one_line(changed, words):
    environ = {"security_protocol": "SSL", "sasl_username": "u", "sasl_password": BAD} | changed
    environ = {f"PERFSTREAM_KAFKA_{name.upper()}": value for name, value in environ.items()}
    for name in (("topics", "apply"), ("worker",), ("sink",)):
        code, out, err = command(environ, *name)
        assert (code, out) == (1, "")
        assert words in err
        assert len([line for line in err.splitlines() if not line.startswith("{")]) == 1, err
        assert BAD not in err


def test_an_encrypted_key_needs_its_password_and_asks_nobody(site, tmp_path):
    certificate, key = site.certificates["sink"]
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", key, "-out", locked, "-passout", f"pass:{PASSWORD}"],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = KafkaSettings(security_protocol="SSL", ssl_certfile=str(certificate), ssl_keyfile=str(locked))
    with pytest.raises(Exception, match=r"ssl_keyfile.* cannot be used"):
        settings.client_options()
    fine = site.kafka("SSL", "sink", ssl_keyfile=locked, ssl_keypassword=PASSWORD)
    assert fine.client_options()["ssl_context"]
    assert Secret(PASSWORD) == fine.ssl_keypassword
    assert PASSWORD not in repr(fine)
