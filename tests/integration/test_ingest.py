"""The push endpoint with the real broker: every format by hand with known sums, every refusal, Kafka away."""

import base64
import gzip
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2_grpc import ProfilesServiceStub

from collectors.ingest import otlp
from deploy.broker import free_port
from deploy.cli import cli
from tests.integration.ingest_process import Ingest, create_topic, serving
from tests.integration.known_profiles import form, pprof, push
from tests.unit.test_otlp_decode import SAMPLE

pytestmark = pytest.mark.services
SECOND = 1_000_000_000
PUSH = "/push.v1.PusherService/Push"
MEMORY = [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")]


@pytest.fixture(scope="module")
def server(broker, tmp_path_factory):
    """One endpoint for the module; each test has a service of its own."""
    with serving(broker, tmp_path_factory.mktemp("ingest"), f"ingest{os.getpid()}.") as running:
        yield running


def answered(server, path, body=b"", content_type="", **parameters):
    """Return (status, code, message) of a refusal, which is one line of JSON."""
    status, headers, text = server.post(path, body, content_type, **parameters)
    assert headers["Content-Type"] == "application/json"
    assert text.endswith(b"}\n")
    answer = json.loads(text)
    return status, answer["code"], answer["message"]


def test_folded_text_with_labels(server, unique):
    start = time.time_ns() - 10 * SECOND
    body = b"main;work 101\nmain;work;leaf 13\nmain;work 2\n"
    name = f"{unique}.cpu{{version=v1,namespace=shop,pod=p-1,container=c,node=n-7,extra=x}}"
    parameters = {"name": name, "from": start // SECOND, "until": start // SECOND + 10, "sampleRate": 100}
    assert server.ingest(body, **parameters) == 200
    rows = server.rows(unique)
    assert {tuple(row["stack"]): row["value"] for row in rows} == {
        ("main", "work"): 103 * 10_000_000,
        ("main", "work", "leaf"): 13 * 10_000_000,
    }
    for row in rows:
        identity = [row[key] for key in ("cluster", "node", "namespace", "pod", "container", "service", "version")]
        assert identity == ["lab", "n-7", "shop", "p-1", "c", unique, "v1"]
        assert (row["type"], row["unit"], row["period"]) == ("process_cpu", "nanoseconds", 10_000_000)
        assert row["time_ns"] == start // SECOND * SECOND


def test_groups_lines_speedscope_tries_and_trees(server, unique):
    assert server.ingest(b"a;b 7\n", name=unique, format="groups", sampleRate=1000) == 200
    assert server.ingest(b"a;c\n" * 11 + b"a;d\n" * 3, name=unique, format="lines", sampleRate=1000) == 200
    sampled = {"type": "sampled", "unit": "milliseconds", "samples": [[0, 1], [0], [0, 1]], "weights": [2, 5, 11],
               "name": "", "startValue": 0, "endValue": 18}  # fmt: skip
    events = [("O", 0, 0), ("O", 1, 3), ("C", 1, 8), ("C", 0, 20)]
    evented = {"type": "evented", "unit": "milliseconds", "name": "", "startValue": 0, "endValue": 20,
               "events": [{"type": kind, "frame": frame, "at": at} for kind, frame, at in events]}  # fmt: skip
    document = {"shared": {"frames": [{"name": "s"}, {"name": "t"}]}, "profiles": [sampled, evented]}
    assert server.ingest(json.dumps(document).encode(), name=f"{unique}.wall", format="speedscope") == 200
    trie, tree = b"\0\0\1\2a;\0\2\1e\x0d\0\1f\x11\0", b"\0\0\1\1a\x13\1\1g\x17\0"
    assert server.ingest(trie, name=unique, format="trie", sampleRate=1000) == 200
    assert server.ingest(tree, "binary/octet-stream+tree", name=unique, sampleRate=1000) == 200
    assert server.sums(unique) == {
        ("process_cpu", "b"): 7_000_000,
        ("process_cpu", "c"): 11_000_000,
        ("process_cpu", "d"): 3_000_000,
        ("process_cpu", "e"): 13_000_000,
        ("process_cpu", "f"): 17_000_000,
        ("process_cpu", "a"): 19_000_000,
        ("process_cpu", "g"): 23_000_000,
        ("wall", "s"): (5 + 3 + 12) * 1_000_000,
        ("wall", "t"): (2 + 11 + 5) * 1_000_000,
    }


def test_pprof_as_a_body_and_as_a_form(server, unique):
    deadline = time.monotonic() + 120
    while "profiles are read by compiled code" not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    now = time.time_ns()
    cpu = pprof([(["main", "f"], [17, 170]), (["main", "g"], [2, 20])], [("samples", "count"), ("cpu", "nanoseconds")],
                time_ns=now, period=10)  # fmt: skip
    assert server.ingest(cpu, name=unique, format="pprof") == 200
    counted = pprof([(["main", "h"], [19])], [("samples", "count")], time_ns=now, period=10_000_000)
    assert server.ingest(*form(profile=counted), name=unique) == 200
    memory = pprof([(["main", "f"], [3, 3000, 1, 1000]), (["main", "k"], [0, 0, 0, 5])], MEMORY, time_ns=now)
    config = {name: {"units": "objects", "cumulative": False} for name, _unit in MEMORY if name != "alloc_objects"}
    assert server.ingest(*form(profile=memory, sample_type_config=json.dumps(config).encode()), name=unique) == 200
    lock = pprof([(["main", "wait"], [23, 2300])], [("contentions", "count"), ("delay", "nanoseconds")], time_ns=now)
    config = {"contentions": {"display-name": "mutex_count"}, "delay": {"display-name": "mutex_duration"}}
    assert server.ingest(*form(profile=lock, sample_type_config=json.dumps(config).encode()), name=unique) == 200
    assert server.sums(unique) == {
        ("process_cpu", "f"): 170,
        ("process_cpu", "g"): 20,
        ("process_cpu", "h"): 190_000_000,
        ("alloc_space", "f"): 3000,
        ("inuse_objects", "f"): 1,
        ("inuse_space", "f"): 1000,
        ("inuse_space", "k"): 5,
        ("mutex_contentions", "wait"): 23,
        ("mutex_delay", "wait"): 2300,
    }
    assert {row["time_ns"] for row in server.rows(unique)} == {now}


def test_a_cumulative_profile_counts_from_the_one_before_it(server, unique):
    before = pprof([(["f"], [5, 500]), (["g"], [1, 100])], MEMORY[:2])
    after = pprof([(["f"], [12, 1200]), (["g"], [1, 100]), (["h"], [2, 7])], MEMORY[:2])
    config = json.dumps({name: {"cumulative": True} for name, _unit in MEMORY[:2]}).encode()
    body = form(profile=after, prev_profile=before, sample_type_config=config)
    assert server.ingest(*body, name=unique) == 200
    grown = {("alloc_objects", "f"): 7, ("alloc_objects", "h"): 2, ("alloc_space", "f"): 700, ("alloc_space", "h"): 7}
    assert server.sums(unique) == grown
    # Through Push the receiver remembers, unless the sender says that it has subtracted.
    labels = {"__name__": "memory", "service_name": f"{unique}2"}
    for data in (before, after):
        assert server.post(PUSH, push([(labels, [data])]), "application/proto")[0] == 200
    assert server.sums(f"{unique}2") == grown
    labels = {"__name__": "memory", "service_name": f"{unique}3", "__delta__": "false"}
    assert server.post(PUSH, push([(labels, [before])]), "application/proto")[0] == 200
    assert server.sums(f"{unique}3")["alloc_space", "f"] == 500


def test_push_in_protobuf_and_json(server, unique):
    now = time.time_ns()
    one = pprof([(["main", "f"], [101])], time_ns=now, period=10)
    two = pprof([(["main", "g"], [7]), (["main", "f"], [11])], time_ns=now, period=10, compress=False)
    labels = {"__name__": "process_cpu", "service_name": unique, "service_version": "v2", "k8s_pod_name": "p"}
    body = push([(labels, [one, two]), ({**labels, "service_name": f"{unique}b"}, [one])])
    status, headers, answer = server.post(PUSH, gzip.compress(body), "application/proto",
                                          headers={"Content-Encoding": "gzip"})  # fmt: skip
    assert (status, headers["Content-Type"], answer) == (200, "application/proto", b"")
    document = {
        "series": [
            {
                "labels": [{"name": name, "value": value} for name, value in labels.items()],
                "samples": [{"ID": "x", "rawProfile": base64.b64encode(one).decode()}],
            }
        ]
    }
    status, headers, answer = server.post(PUSH, json.dumps(document).encode(), "application/json")
    assert (status, headers["Content-Type"], answer) == (200, "application/json", b"{}")
    assert server.sums(unique) == {("process_cpu", "f"): 101 + 11 + 101, ("process_cpu", "g"): 7}
    assert server.sums(f"{unique}b") == {("process_cpu", "f"): 101}
    assert {(row["version"], row["pod"], row["node"]) for row in server.rows(unique)} == {("v2", "p", "here")}


def test_what_cannot_be_taken_is_refused_with_one_line_and_nothing_else_is_lost(server, unique):
    good = pprof([(["main"], [3])], time_ns=time.time_ns())
    before = server.metric("profiles_total")
    assert answered(server, "/ingest", b"a 1\n")[:2] == (400, "invalid_argument")
    assert answered(server, "/ingest", b"a 1\n", name="{a=b}")[:2] == (400, "invalid_argument")
    assert answered(server, "/ingest", b"a 1\n", name=f"{unique}{{a}}")[:2] == (400, "invalid_argument")
    assert answered(server, "/ingest", b"a one\n", name=unique)[0] == 422
    assert answered(server, "/ingest", b"junk", name=unique, format="pprof")[0] == 422
    assert answered(server, "/ingest", good[: len(good) // 2], name=unique, format="pprof")[0] == 422
    assert answered(server, "/ingest", b"{}", name=unique, format="speedscope")[0] == 422
    assert answered(server, "/ingest", b"x", name=unique, format="trie")[0] == 422
    assert answered(server, "/ingest", b"x", name=unique, format="odd")[0] == 422
    assert answered(server, "/ingest", b"--x\r\n", "multipart/form-data; boundary=x", name=unique)[0] == 422
    bomb = gzip.compress(bytes(200 << 20), 1)
    status, _code, message = answered(server, "/ingest", bomb, name=unique, format="pprof")
    assert status == 422
    assert "when inflated" in message
    tomorrow = pprof([(["main"], [3])], time_ns=time.time_ns() + 86_400 * SECOND)
    status, _code, message = answered(server, "/ingest", tomorrow, name=unique, format="pprof")
    assert status == 422
    assert "ingestion window" in message

    labels = {"service_name": unique}
    assert answered(server, PUSH, push([(labels, [tomorrow])]), "application/proto")[:2] == (400, "invalid_argument")
    assert answered(server, PUSH, push([(labels, [bomb])]), "application/proto")[:2] == (400, "invalid_argument")
    assert answered(server, PUSH, push([({}, [good])]), "application/proto")[:2] == (400, "invalid_argument")
    assert answered(server, PUSH, b"", "application/proto")[:2] == (400, "invalid_argument")
    assert answered(server, PUSH, b"\xff\xff", "application/proto")[:2] == (400, "invalid_argument")
    assert answered(server, PUSH, b"[", "application/json")[:2] == (400, "invalid_argument")
    assert answered(server, PUSH, b"x", "text/plain")[0] == 415
    status, code, _message = answered(
        server, PUSH, gzip.compress(bytes(200 << 20), 1), "application/proto", headers={"Content-Encoding": "gzip"}
    )
    assert (status, code) == (429, "resource_exhausted")
    # An empty profile is no error, and no row.
    assert server.ingest(b"", name=unique, format="pprof") == 200
    assert server.ingest(pprof([]), name=unique, format="pprof") == 200
    assert server.metric("profiles_total") - before == 1

    assert server.ingest(good, name=unique, format="pprof") == 200
    assert server.sums(unique) == {("process_cpu", "main"): 3}
    for reason in ("no_name", "bad_name", "not_profile", "format", "time", "empty", "content_type", "too_large"):
        text = f'refused_total{{reason="{reason}"}}'
        assert server.metric(text) >= 1, reason


def test_200_megabytes_are_refused_before_they_are_read(server, unique):
    for path, status in ((f"/ingest?name={unique}&format=pprof", 413), (PUSH, 429)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {200 << 20}\r\n\r\n".encode())
            answer = client.makefile("rb").read()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"request body too large" in answer
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(f"POST /ingest?name={unique} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        client.sendall(b"%x\r\n" % (200 << 20))
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 413 ")


def test_chunked_bodies_and_bodies_that_wait_for_an_invitation(server, unique):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        answers = client.makefile("rb")
        head = f"POST /ingest?name={unique} HTTP/1.1\r\nHost: x\r\n"
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n4\r\na 7\n\r\n5\r\nb 11\n\r\n0\r\n\r\n".encode())
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        while answers.readline() != b"\r\n":
            pass
        client.sendall(f"{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answers.readline() == b"\r\n"
        client.sendall(b"a 13\n")
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        client.sendall(b"")
    assert server.sums(unique) == {("process_cpu", "a"): 200_000_000, ("process_cpu", "b"): 110_000_000}


def test_profiles_that_arrive_together_travel_together_and_every_value_counts(server, unique):
    from concurrent.futures import ThreadPoolExecutor

    now = time.time_ns()
    before = len(server.messages())

    def one(number):
        data = pprof([(["main", f"f{number % 7}"], [101])], time_ns=now)
        return server.ingest(data, name=f"{unique}{{version=v{number % 3}}}", format="pprof")

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(one, range(211))) == {200}
    assert sum(server.sums(unique).values()) == 211 * 101
    assert len(server.messages()) - before < 211


def test_a_profile_larger_than_a_message_becomes_several(server, unique):
    deep = ["r" * 900, *(f"{'x' * 200}{n}" for n in range(100))]
    samples = [([*deep, f"leaf{number}"], [number]) for number in range(1, 3000)]
    before = len(server.messages())
    assert server.ingest(pprof(samples), name=unique, format="pprof") == 200
    assert len(server.messages()) - before >= 2
    assert sum(row["value"] for row in server.rows(unique)) == sum(range(1, 3000))


def test_kafka_that_is_away_gives_503_and_what_is_sent_again_later_is_there_once(own_broker, tmp_path, unique):
    prefix = f"{unique}."
    create_topic(own_broker, prefix)
    server = Ingest(tmp_path, own_broker.address, prefix, PERFSTREAM_INGEST_ACK_TIMEOUT_S="1.5")
    try:
        server.until_well()
        assert server.ingest(b"a 3\n", name=unique) == 200
        own_broker.process.send_signal(signal.SIGKILL)
        own_broker.process.wait()
        started = time.monotonic()
        status, headers, text = server.post("/ingest", b"a 5\n", name=unique)
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        assert json.loads(text)["code"] == "unavailable"
        assert time.monotonic() - started < 10
        assert (
            server.post(PUSH, push([({"service_name": unique}, [pprof([(["b"], [7])])])]), "application/proto")[0]
            == 503
        )
        own_broker.start()
        server.until_well(60)
        deadline = time.monotonic() + 30
        while server.ingest(b"c 11\n", name=unique) != 200:
            assert time.monotonic() < deadline
        sums = server.sums(unique)
        assert sums["process_cpu", "a"] >= 30_000_000
        assert sums["process_cpu", "c"] == 110_000_000
        # What was answered with 503 may be there, once; nothing else is.
        assert sums["process_cpu", "a"] in (30_000_000, 80_000_000)
        assert sums.get(("process_cpu", "b"), 7) == 7
    finally:
        server.stop()


def test_bodies_beyond_the_budget_are_told_to_come_again(broker, tmp_path, unique):
    server = Ingest(tmp_path, broker.address, f"{unique}.", PERFSTREAM_INGEST_MAX_INFLIGHT_BYTES="1000")
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                server.metric("inflight_bytes")  # served last
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
            slow.sendall(f"POST /ingest?name={unique} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nabc".encode())
            while server.metric("inflight_bytes") != 900:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            status, headers, text = server.post("/ingest", b"a 1\n" * 200, name=unique)
            assert (status, headers["Retry-After"]) == (429, "1")
            assert json.loads(text)["code"] == "resource_exhausted"
    finally:
        server.stop()


def test_beyond_loopback_it_wants_a_token_and_tls(tmp_path, broker, unique):
    from click.testing import CliRunner

    from streams.schema.errors import SettingsError

    for environ in ({}, {"PERFSTREAM_INGEST_TOKEN": "secret-7"}):
        done = CliRunner().invoke(cli, ["ingest", "--host", "0.0.0.0", "--port", "0"], env=environ)
        assert isinstance(done.exception, SettingsError)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True,
    )  # fmt: skip
    create_topic(broker, f"{unique}.")
    server = Ingest(tmp_path, broker.address, f"{unique}.", PERFSTREAM_INGEST_TOKEN="secret-7",
                    PERFSTREAM_INGEST_HOST="0.0.0.0", PERFSTREAM_INGEST_CERT_FILE=str(cert),
                    PERFSTREAM_INGEST_KEY_FILE=str(key))  # fmt: skip
    try:
        import ssl

        server.until_well()
        tls = ssl.create_default_context(cafile=str(cert))
        basic = base64.b64encode(b"user:secret-7").decode()
        for given, status in (
            ({}, 401), ({"Authorization": "Bearer secret-8"}, 401), ({"Authorization": "Bearer secret-7"}, 200),
            ({"Authorization": f"Basic {basic}"}, 200),
        ):  # fmt: skip
            assert server.post("/ingest", b"a 1\n", headers=given, tls=tls, name=unique)[0] == status
        assert server.sums(unique) == {("process_cpu", "a"): 20_000_000}
        assert "secret-7" not in server.log.read_text()
    finally:
        server.stop()


def test_web_pages_from_elsewhere_are_not_let_in(server, unique):
    assert answered(server, "/ingest", b"a 1\n", headers={"Origin": "https://evil.example"}, name=unique)[0] == 403


def otlp_request(unique, counts):
    message = SAMPLE.__class__.FromString(SAMPLE.SerializeToString())
    message.resource_profiles[0].resource.attributes[0].value.string_value = unique
    (profile,) = message.resource_profiles[0].scope_profiles[0].profiles
    profile.time_unix_nano = time.time_ns() - 5 * SECOND
    del profile.samples[:]
    for count in counts:
        profile.samples.add(stack_index=1, values=[count])
    return message


def test_otlp_profiles_over_http_and_grpc(broker, tmp_path, unique):
    prefix, port = f"{unique}.", free_port()
    create_topic(broker, prefix)
    server = Ingest(tmp_path, broker.address, prefix, PERFSTREAM_INGEST_GRPC_PORT=str(port),
                    PERFSTREAM_INGEST_TOKEN="secret-7")  # fmt: skip
    try:
        server.until_well()
        path, allowed = "/v1development/profiles", {"Authorization": "Bearer secret-7"}
        assert server.post(path, b"", otlp.PROTO)[0] == 401
        for kind, body in (
            (otlp.PROTO, otlp_request(unique, [7, 13]).SerializeToString()),
            (otlp.JSON, json_format.MessageToJson(otlp_request(unique, [101])).encode()),
        ):
            assert server.post(path, body, kind, allowed)[0] == 200
        assert server.post(path, b"\xff" * 99, otlp.PROTO, allowed)[0] == 400
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = ProfilesServiceStub(channel).Export
            with pytest.raises(grpc.RpcError) as refused:
                export(otlp_request(unique, [1]), timeout=20, wait_for_ready=True)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            export(otlp_request(unique, [1009]), timeout=20, metadata=[("authorization", "Bearer secret-7")])
        assert server.sums(unique) == {("process_cpu", "Main"): (7 + 13 + 101 + 1009) * 50_000_000}
    finally:
        server.stop()


def test_what_pyroscopes_java_agent_sends(server, unique):
    corpus = Path(__file__).parents[1] / "corpus" / "jfr"
    body, content_type = form(jfr=(corpus / "agent.jfr").read_bytes(), labels=(corpus / "agent.labels").read_bytes())
    now = time.time_ns() // SECOND
    name = f"{unique}{{version=v7}}"
    parameters = {"name": name, "format": "jfr", "from": now - 10, "until": now, "spyName": "javaspy"}
    assert server.post("/ingest", body, content_type, **parameters)[0] == 200
    rows = server.rows(unique)
    assert {row["version"] for row in rows} == {"v7"}
    assert {"process_cpu"} <= {row["type"] for row in rows}
    assert sum(row["value"] for row in rows) > 0
    cut = (corpus / "agent.jfr").read_bytes()[:20_000]
    body, content_type = form(jfr=cut)
    assert answered(server, "/ingest", body, content_type, **parameters)[0] == 422
