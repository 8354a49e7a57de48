"""The running scraper against real targets: a Go program, behind a proxy that records, guards and misbehaves."""

import contextlib
import gzip
import json
import logging
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from collectors.publisher import Publisher
from collectors.scrapers import files, pprof
from collectors.scrapers.scraper import Scrapers
from collectors.scrapers.settings import DiscoverySettings, ScrapeTarget
from collectors.spool import Spool
from deploy.broker import free_port
from runtime.settings import KafkaSettings, Secret
from streams import topics_admin
from streams.schema import codec, stacks
from streams.schema.topics import RAW_PROFILES, Topic

pytestmark = pytest.mark.services
SECRET = "Bearer hunter2-hunter2"
MB = 1 << 20
RENAMED = {
    "mutex": {"contentions": "mutex_contentions", "delay": "mutex_delay"},
    "block": {"contentions": "block_contentions", "delay": "block_delay"},
    "allocs": {"alloc_objects": "alloc_objects", "alloc_space": "alloc_space"},
}


@contextlib.contextmanager
def running(binary):
    """A Go program; yields its address."""
    with subprocess.Popen([str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def go(gopprof):
    with running(gopprof) as address:
        yield address


@contextlib.contextmanager
def served(answer, context=None):
    """An HTTP server on loopback that answers by ``answer(handler)``; yields its ``host:port``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with contextlib.suppress(OSError):
                answer(self)
            self.close_connection = True

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a client that does not trust us

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(handler, body, status=200, kind="application/octet-stream", **headers):
    handler.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


class Recorder:
    """Forwards to a Go program and keeps what it answered, by profile."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.seen = {}

    def __call__(self, handler):
        with urllib.request.urlopen(f"http://{self.upstream}{handler.path}", timeout=30) as answer:
            body = answer.read()
        # Before the answer: what is published has been recorded, whatever thread is faster.
        self.seen.setdefault(handler.path.rsplit("/", 1)[-1], []).append(body)
        reply(handler, body)


class Published:
    """Stands where the publisher does, and keeps what it gets."""

    def __init__(self):
        self.calls = []

    def __call__(self, *call):
        self.calls.append(call)

    def of(self, kind):
        return [call for call in self.calls if kind in call[2].column("type").to_pylist()]

    def sums(self):
        found = Counter()
        for _, _, batch, *_ in self.calls:
            for row in batch.select(["type", "stack", "value"]).to_pylist():
                found[row["type"], stacks.join(row["stack"]["frames"])] += row["value"]
        return found


@contextlib.contextmanager
def scraping(*targets, publish, **sources):
    registry = CollectorRegistry()
    scrapers = Scrapers(targets, publish, registry, **sources)
    scrapers.start()
    try:
        yield scrapers, lambda name, **labels: registry.get_sample_value(f"perfstream_scraper_{name}", labels) or 0
    finally:
        scrapers.close()


def until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def one(address, profile="heap", **given):
    return ScrapeTarget(address, profiles={profile: given.pop("every", 1)}, **given)


def totals(body, names):
    """Return {(published type, stack): value} of one profile."""
    profile = pprof.decode(body)
    found = Counter()
    for go_name, ours in names.items():
        for text, value in zip(profile.texts, profile.values[:, profile.types.index(go_name)].tolist(), strict=True):
            found[ours, text] += value
    return found


def test_growth_is_exact_over_scrapes_and_over_a_restart_of_the_target(gopprof):
    published = Published()
    names = ("allocs", "mutex", "block")
    with running(gopprof) as second, running(gopprof) as first:
        recorder = Recorder(first)
        with served(recorder) as address:
            target = ScrapeTarget(f"http://{address}", service="s", profiles=dict.fromkeys(names, 1))
            with scraping(target, publish=published) as (_scrapers, metric):
                # Three scrapes of one process, then its place is taken by another, and two of that one.
                until(lambda: all(len(recorder.seen.get(name, ())) >= 3 for name in names))
                recorder.upstream = second
                before = {name: len(recorder.seen[name]) for name in names}
                until(lambda: all(len(recorder.seen[name]) >= before[name] + 2 for name in names))
                until(lambda: all(metric("restarts_total", target=target.label, profile=n) == 1 for n in names))
                seen = {name: len(bodies) for name, bodies in recorder.seen.items()}
                until(lambda: len(published.calls) >= sum(seen.values()) - 3)
    expected = Counter()
    for name in names:
        # By the times that the answers carry: one that came too late to be taken counts with the next.
        answers = {profile.time_ns: (profile, body) for body in recorder.seen[name] for profile in [pprof.decode(body)]}
        calls = [call for kind in RENAMED[name].values() for call in published.of(kind)]
        baseline = min(call[3] for call in calls)
        taken = [answers[at] for at in sorted({baseline, *(call[4] for call in calls)})]
        processes = [profile.process for profile, _body in taken]
        assert len(set(processes)) == 2
        change = processes.index(processes[-1])
        for (_profile, body), sign in ((taken[0], -1), (taken[change - 1], 1), (taken[-1], 1)):
            for key, value in totals(body, RENAMED[name]).items():
                expected[key] += sign * value
    assert {key: value for key, value in published.sums().items() if value} == {k: v for k, v in expected.items() if v}
    for kind in ("alloc_space", "mutex_delay", "block_delay"):
        calls = published.of(kind)
        assert all(start < end for _, _, _, start, end, *_ in calls)
        # Each growth begins where the one before ended.
        assert [call[4] for call in calls[:-1]] == [call[3] for call in calls[1:]]


def test_a_target_that_leaves_its_file_and_returns_loses_nothing_and_counts_once(gopprof, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "REFRESH_S", 0.1)
    published, first, second = Published(), tmp_path / "a.json", tmp_path / "b.json"

    def write(path, service, *addresses):
        labels = {"service": service, "profiles": "mutex=1"}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([{"targets": addresses, "labels": labels}]))
        partial.replace(path)

    def services():
        return Counter(call[2].column("service")[0].as_py() for call in list(published.calls) if call[2].num_rows)

    with running(gopprof) as go:
        recorder = Recorder(go)
        with served(recorder) as address:
            source = files.FileTargets(DiscoverySettings((str(tmp_path / "*.json"),)), CollectorRegistry())
            with scraping(publish=published, sources=[source]) as (_scrapers, metric):
                series = {"target": f"http://{address}", "profile": "mutex"}
                write(first, "one", address)
                until(lambda: services()["one"] >= 1)
                # Named twice, and nothing twice: the first file's labels count.
                write(second, "two", address)
                until(lambda: metric("targets", source="file") == 2)
                before = services()["one"]
                until(lambda: services()["one"] > before)
                # Out of one file, still in the other.
                write(first, "one")
                until(lambda: services()["two"] >= 1)
                write(second, "two")
                until(lambda: not metric("scrapes_total", **series))
                asked = len(recorder.seen["mutex"])
                time.sleep(1.5)  # longer than its interval
                assert len(recorder.seen["mutex"]) == asked
                write(first, "three", address)
                until(lambda: services()["three"] >= 1)
    assert set(services()) == {"one", "two", "three"}
    taken = recorder.seen["mutex"][: len(published.calls) + 1]
    expected = totals(taken[-1], RENAMED["mutex"])
    expected.subtract(totals(taken[0], RENAMED["mutex"]))
    assert {key: value for key, value in published.sums().items() if value} == {k: v for k, v in expected.items() if v}
    # Each growth begins where the one before ended, over the pause as well.
    assert [call[4] for call in published.calls[:-1]] == [call[3] for call in published.calls[1:]]


def test_more_targets_than_there_is_room_for_are_left_out_and_said(go, tmp_path, caplog):
    listed = [{"targets": [go, "127.0.0.1:1", "127.0.0.1:2"], "labels": {"profiles": "goroutine=1"}}]
    (tmp_path / "a.json").write_text(json.dumps(listed))
    source = files.FileTargets(DiscoverySettings((str(tmp_path / "*.json"),)), CollectorRegistry())
    published = Published()
    with scraping(one(f"http://{go}", service="fixed"), publish=published, sources=[source], most=1) as (_s, metric):
        until(lambda: published.of("goroutine") and published.of("inuse_space"))
        assert (metric("targets", source="file"), metric("targets_left_out", source="file")) == (1, 2)
        assert metric("scrapes_total", target="http://127.0.0.1:1", profile="goroutine") == 0
    assert caplog.text.count("too many targets") == 1


BAD = {
    "html": "not_profile",
    "text": "not_profile",
    "status": "status",
    "silent": "timeout",
    "drip": "timeout",
    "large": "too_large",
    "chunks": "too_large",
    "bomb": "not_profile",
    "redirect": "redirect",
    "circle": "redirect",
    "noise": "protocol",
    "short": "protocol",
    "closed": "protocol",
    "refused": "connect",
    "nowhere": "connect",
    "untrusted": "tls",
}


def misbehave(ended, sent):  # noqa: C901 - one case for each kind
    """Answer as the first part of the path says."""
    bomb = gzip.compress(bytes(100 * MB), 1)

    def answer(handler):  # noqa: C901
        kind = handler.path.split("/")[1]
        if kind == "html":
            reply(handler, b"<html>hello</html>", kind="text/html; charset=utf-8")
        elif kind == "text":
            reply(handler, b"heap profile: 1: 2 [3: 4] @ heap/1048576\n", kind="text/plain")
        elif kind == "status":
            reply(handler, b"profiling is off", 500, "text/plain")
        elif kind == "silent":
            ended.wait(20)
        elif kind == "drip":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000000")
            handler.end_headers()
            while not ended.wait(0.1):
                handler.wfile.write(b"x")
        elif kind == "large":
            handler.send_response(200)
            handler.send_header("Content-Length", str(100 * MB))
            handler.end_headers()
        elif kind == "chunks":
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for _ in range(1600):
                handler.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent[kind] += 65536
        elif kind == "bomb":
            reply(handler, bomb)
        elif kind == "redirect":
            reply(handler, b"", 302, Location="http://169.254.169.254/latest/")
        elif kind == "circle":
            reply(handler, b"", 302, Location=handler.path)
        elif kind == "noise":
            handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif kind == "short":
            reply(handler, b"x" * 10, Content_Length="11")

    return answer


def test_bad_targets_are_counted_and_said_once_and_delay_nobody(go, caplog):
    caplog.set_level(logging.INFO, "collectors.scrapers.scraper")
    published, ended, sent = Published(), threading.Event(), Counter()
    peak = peak_memory()
    with served(misbehave(ended, sent)) as address:
        targets = {kind: one(f"http://{address}", path=f"/{kind}", timeout_s=0.7) for kind in BAD}
        targets["refused"] = one(f"http://127.0.0.1:{free_port()}")
        targets["nowhere"] = one("http://nowhere.invalid:1", timeout_s=5)
        targets["untrusted"] = one(f"https://{address}", timeout_s=2)
        good = one(f"http://{go}", "goroutine", service="good")
        with scraping(good, *targets.values(), publish=published) as (scrapers, metric):

            def failed(kind):
                return metric("failures_total", target=targets[kind].label, profile="heap", reason=BAD[kind])

            until(lambda: all(failed(kind) >= 2 for kind in BAD), 60)
            begun, scraped = time.monotonic(), len(published.calls)
            until(lambda: len(published.calls) >= scraped + 3)
            assert time.monotonic() - begun < 8  # one after the other, their time limits alone would be 11 s
            scrapes = metric("scrapes_total", target=good.label, profile="goroutine")
            assert scrapes >= 5
            assert metric("up", target=good.label, profile="goroutine") == 1
            # Requests wait for nobody; decoding is one at a time, and 64 MB of a bomb take a while on a busy machine.
            assert metric("skipped_total", target=good.label, profile="goroutine") <= scrapes / 3
            for kind, target in targets.items():
                assert metric("up", target=target.label, profile="heap") == 0
                total = metric("scrapes_total", target=target.label, profile="heap")
                assert failed(kind) >= total - 1, f"{kind} failed otherwise, too"
            begun = time.monotonic()
            scrapers.close()
            assert time.monotonic() - begun < 1
        ended.set()
    lines = Counter((r.target, r.reason) for r in caplog.records if r.levelno == logging.WARNING)
    assert lines == {(targets[kind].label, reason): 1 for kind, reason in BAD.items()}
    said = {r.target.rsplit("/", 1)[-1]: r.getMessage() for r in caplog.records if r.levelno == logging.WARNING}
    assert said["status"] == "cannot scrape: it answers with status 500: profiling is off"
    assert said["html"] == "cannot scrape: it answers with a web page, not a profile"
    assert said["large"] == said["chunks"] == "cannot scrape: the answer is larger than 16 MB; reading stopped there"
    assert {call[2].column("service")[0].as_py() for call in published.calls} == {"good"}
    # Sockets hold some MB of what was sent; 100 MB were never taken in.
    assert sent["chunks"] / max(1, failed("chunks")) < 40 * MB
    # 64 MB of the bomb, three answers of 16 MB, each for a moment twice; not the 100 MB of either.
    assert peak_memory() - peak < 160 * MB


def peak_memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def test_a_target_that_recovers_is_said_and_its_cached_answer_is_not_counted_twice(go, caplog):
    caplog.set_level(logging.INFO, "collectors.scrapers.scraper")
    published, broken = Published(), threading.Event()
    with urllib.request.urlopen(f"http://{go}/debug/pprof/profile?seconds=1", timeout=10) as answer:
        cached = answer.read()
    broken.set()

    def cache(handler):
        reply(handler, b"" if broken.is_set() else cached, 503 if broken.is_set() else 200)

    with served(cache) as address:
        target = one(f"http://{address}", "profile", seconds=1)
        with scraping(target, publish=published) as (_scrapers, metric):
            labels = {"target": target.label, "profile": "profile"}
            until(lambda: metric("failures_total", reason="status", **labels) == 1)
            broken.clear()
            until(lambda: metric("failures_total", reason="repeated", **labels) >= 1)
    assert len(published.calls) == 1
    assert "scrapes again" in [record.getMessage() for record in caplog.records]
    (_, _, batch, start, end, events, _), profile = published.calls[0], pprof.decode(cached)
    assert events == int(profile.values[:, 0].sum())
    assert sum(batch.column("value").to_pylist()) == int(profile.values[:, 1].sum())
    assert 0 < end - start < 1.5e9


def test_closing_while_a_cpu_profile_runs_is_quick_and_publishes_no_half(go):
    published = Published()
    target = one(f"http://{go}", "profile", seconds=3, every=3)
    other = one(f"http://{go}", "goroutine")
    with scraping(target, other, publish=published) as (scrapers, metric):
        until(lambda: metric("scrapes_total", target=target.label, profile="profile") == 1)
        begun = time.monotonic()
        scrapers.close()
        assert time.monotonic() - begun < 1
        count = len(published.calls)
    assert not published.of("process_cpu")
    time.sleep(0.1)  # nothing may come any more
    assert len(published.calls) == count


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, and certificates of a server and of a client that it has signed."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2")
    for name in ("server", "client"):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", "san")  # fmt: skip
    return folder


def test_tls_client_certificate_and_authorisation(go, certificates, caplog):
    caplog.set_level(logging.INFO)
    recorder = Recorder(go)

    def guarded(handler):
        given = handler.headers.get("Authorization", "")
        if given != SECRET:
            # A careless target: it repeats what it was given.
            reply(handler, f"401 who are you, {given}, {SECRET}?".encode(), 401, "text/plain")
        else:
            recorder(handler)

    strict = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    strict.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    plain = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    plain.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    strict.verify_mode = ssl.CERT_REQUIRED
    ca = {"ca_file": str(certificates / "ca.pem")}
    client = {"cert_file": str(certificates / "client.pem"), "key_file": str(certificates / "client.key")}
    key = {"authorization": Secret(SECRET)}
    published = Published()
    with served(guarded, strict) as guarded_by_certificate, served(guarded, plain) as address:
        cases = {
            "good": (ScrapeTarget(f"https://{guarded_by_certificate}", service="good", **ca, **client, **key), ""),
            "insecure": (ScrapeTarget(f"https://{address}", service="insecure", insecure=True, **key), ""),
            "nobody": (ScrapeTarget(f"https://{guarded_by_certificate}", path="/a", **ca, **key), "tls"),
            "unknown": (ScrapeTarget(f"https://{address}", path="/b", **key), "tls"),
            "name": (ScrapeTarget(f"https://localhost:{address.split(':')[1]}", **ca, **key), "tls"),
            "missing": (ScrapeTarget(f"https://{address}", path="/c", ca_file="/nowhere.pem", **key), "tls"),
            "wrong": (ScrapeTarget(f"https://{address}", path="/d", insecure=True,
                                   authorization=Secret("Bearer hunter2-wrong")), "status"),
        }  # fmt: skip
        targets = [one_of(target) for target, _reason in cases.values()]
        with scraping(*targets, publish=published) as (_scrapers, metric):
            for target, reason in cases.values():
                labels = {"target": target.label, "profile": "heap"}
                if reason:
                    until(lambda: metric("failures_total", reason=reason, **labels) >= 1)  # noqa: B023
                else:
                    until(lambda: metric("up", **labels) == 1)  # noqa: B023
    assert {call[2].column("service")[0].as_py() for call in published.calls} == {"good", "insecure"}
    assert "who are you" in caplog.text
    shown = caplog.text + "".join(str(vars(record)) for record in caplog.records) + repr(targets)
    assert "hunter2-wrong" not in shown


def one_of(target):
    return replace(target, profiles={"heap": 1}, timeout_s=3.0)


async def test_through_the_real_kafka_every_value_arrives_once(go, broker, unique, tmp_path):
    topic = Topic(unique + RAW_PROFILES.name, "node", "profile", 2, 3_600_000)
    await topics_admin.apply({"bootstrap_servers": broker.address}, [topic])
    spool = Spool(tmp_path / "spool")
    sender = Publisher(KafkaSettings(broker.address), spool, "c1", "n1", unique)
    recorder, published = Recorder(go), Published()

    def publish(*call):
        published(*call)
        return sender.publish(*call)

    sender.start()
    every = ("profile", "heap", "allocs", "goroutine", "mutex", "block", "threadcreate")
    kinds = ("process_cpu", "inuse_space", "alloc_space", "goroutine", "mutex_delay", "block_delay", "threadcreate")
    with served(recorder) as address:
        target = ScrapeTarget(
            f"http://{address}", service="shop", version="v1", profiles=dict.fromkeys(every, 1), seconds=1
        )
        with scraping(target, publish=publish):
            until(lambda: all(published.of(kind) for kind in kinds))
    assert sender.close(10)
    spool.close()
    arrived = Published()
    for headers, value in await consume(broker.address, topic.name):
        _, interval, batch = codec.decode(headers, value)
        arrived("pprof", "profile", batch, interval.start_ns, interval.end_ns, interval.events, interval.lost)
        assert (interval.collector, interval.cluster, interval.node) == ("pprof", "c1", "n1")
    assert arrived.sums() == published.sums()
    assert sum(call[5] for call in arrived.calls) == sum(call[5] for call in published.calls)
    # The CPU profile as the Go program gave it, inlined frames and all.
    bodies = recorder.seen["profile?seconds=1"][: len(published.of("process_cpu"))]
    expected = Counter()
    for body in bodies:
        expected.update(totals(body, {"cpu": "process_cpu"}))
    assert {key: value for key, value in arrived.sums().items() if key[0] == "process_cpu"} == dict(expected)
    rows = [row for call in arrived.of("process_cpu") for row in call[2].to_pylist()]
    assert {(row["service"], row["version"], row["unit"], row["period"]) for row in rows} == {
        ("shop", "v1", "nanoseconds", 10_000_000)
    }
    now = time.time_ns()
    assert all(now - 120e9 < call[3] < call[4] < now + 1e9 for call in arrived.calls)


async def consume(address, topic):
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found = []
        for partition, end in (await consumer.end_offsets(sorted(consumer.assignment()))).items():
            while await consumer.position(partition) < end:
                for records in (await consumer.getmany(partition, timeout_ms=1000)).values():
                    found += [(record.headers, record.value) for record in records]
        return found
    finally:
        await consumer.stop()


def command(*words, **environ):
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", "scrape", *words], capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).parents[2], env={**os.environ, **environ},
    )  # fmt: skip


def test_the_command_shows_the_functions_of_one_profile(go):
    recorder = Recorder(go)
    with served(recorder) as address:
        url = f"http://{address}/debug/pprof/allocs"
        done = command(url, "-n", "1000", "--format", "json", "--type", "alloc_objects")
        assert done.returncode == 0, done.stderr
        rows = {row["function"]: row for row in json.loads(done.stdout)}
        values = totals(recorder.seen["allocs"][0], {"alloc_objects": "x"})
        assert sum(row["self"] for row in rows.values()) == sum(values.values())
        assert rows["main.main"]["total"] == sum(v for (_, text), v in values.items() if "\nmain.main\t" in f"\n{text}")
        shown = command(url, "-n", "3")
        assert shown.returncode == 0
        assert shown.stdout.startswith("alloc_space: ")
        assert len(shown.stdout.splitlines()) == 5
        assert shown.stdout.splitlines()[1].split() == ["self", "self", "%", "total", "total", "%", "function"]
        assert (
            command(url, "--type", "cpu")
            .stderr.strip()
            .endswith("no type 'cpu'; it has alloc_objects, alloc_space, inuse_objects, inuse_space")
        )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["127.0.0.1:6060"], 2, "give a whole address"),
        (["http://127.0.0.1:6060"], 2, "names no profile; for example http"),
        (["http://u:hunter2@127.0.0.1/x"], 2, "PERFSTREAM_SCRAPE_AUTHORIZATION"),
        (["http://127.0.0.1/debug/pprof/profile?seconds=x"], 2, "seconds in the address"),
        (["http://127.0.0.1:1/debug/pprof/heap"], 1, "127.0.0.1:1/debug/pprof/heap: no connection: Connection refused"),
        (["https://GO/debug/pprof/heap"], 1, "TLS failed"),
        (["http://GO/debug/pprof/"], 1, "a web page, not a profile"),
        (["http://GO/debug/pprof/heap?debug=1"], 1, "no pprof profile"),
        (["http://GO/debug/pprof/nothing"], 1, "status 404: Unknown profile"),
    ],
)
def test_what_the_command_refuses_is_one_line(go, words, status, message):
    done = command(*[word.replace("GO", go) for word in words])
    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "hunter2" not in done.stderr + done.stdout
