"""The gRPC service against OpenTelemetry's generated client."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2_grpc import ProfilesServiceStub

from collectors.ingest.errors import RefusedError
from collectors.ingest.otlp_grpc import Server
from streams.schema.errors import BrokerUnavailableError, SettingsError
from tests.unit.test_otlp_decode import SAMPLE, changed, ours, plainly, request

EMPTY = request([])


@pytest.fixture
def serve():
    """Return what starts a server; gives (server, what it has published)."""
    servers = []

    def started(publish=None, **options):
        taken = []
        server = Server(publish or (lambda series, peer: taken.append((series, peer))), port=0, **options)
        servers.append(server)
        server.start()
        return server, taken

    yield started
    for server in servers:
        server.stop(0)


def export(server, message, channel=None, **options):
    with channel or grpc.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        return ProfilesServiceStub(opened).Export(message, timeout=20, wait_for_ready=True, **options)


def code(server, message, **options):
    with pytest.raises(grpc.RpcError) as caught:
        export(server, message, **options)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_what_the_client_sends_is_published(serve, compression):
    server, taken = serve()
    assert not export(server, SAMPLE, compression=compression).HasField("partial_success")
    ((series, peer),) = taken
    assert ours(series) == plainly(SAMPLE)
    assert peer == "127.0.0.1"


def test_nothing_to_publish_is_taken(serve):
    server, taken = serve()
    export(server, EMPTY)
    assert taken == []


def test_calls_at_once(serve):
    server, taken = serve()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, ThreadPoolExecutor(8) as pool:
        stub = ProfilesServiceStub(channel)
        answers = list(pool.map(lambda _: stub.Export(SAMPLE, timeout=20, wait_for_ready=True), range(31)))
    assert len(answers) == len(taken) == 31


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RefusedError(401, "token", "no"), grpc.StatusCode.UNAUTHENTICATED),
        (RefusedError(403, "origin", "no"), grpc.StatusCode.PERMISSION_DENIED),
        (RefusedError(400, "no_name", "no"), grpc.StatusCode.INVALID_ARGUMENT),
        (RefusedError(413, "too_large", "no"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (RefusedError(429, "busy", "no"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (RefusedError(503, "broker", "no"), grpc.StatusCode.UNAVAILABLE),
        (BrokerUnavailableError("no"), grpc.StatusCode.UNAVAILABLE),
        (SettingsError("no"), grpc.StatusCode.INTERNAL),
        (KeyError("secret"), grpc.StatusCode.INTERNAL),
    ],
)
def test_what_is_not_published_is_refused_with_otlps_codes(serve, error, expected):
    def publish(_series, _peer):
        raise error

    server, _ = serve(publish)
    found, message = code(server, SAMPLE)
    assert found == expected
    assert message == ("no" if not isinstance(error, KeyError) else "an unexpected error; the log has it")


def test_bad_messages_and_large_ones(serve):
    server, taken = serve(max_bytes=1 << 20)
    found, message = code(server, changed(function=(1, "name_strindex", 99)))
    assert found == grpc.StatusCode.INVALID_ARGUMENT
    assert "outside of its table" in message
    large = request([])
    large.dictionary.string_table.append("x" * (2 << 20))
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        assert code(server, large, compression=compression)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    export(server, SAMPLE)
    assert len(taken) == 1


def test_a_call_is_let_in_by_its_headers(serve):
    def check(headers):
        if headers.get("Authorization") != "Bearer right":
            raise RefusedError(401, "token", "a token is required")

    server, taken = serve(check=check)
    assert code(server, SAMPLE)[0] == grpc.StatusCode.UNAUTHENTICATED
    assert code(server, SAMPLE, metadata=[("authorization", "Bearer wrong")])[0] == grpc.StatusCode.UNAUTHENTICATED
    export(server, SAMPLE, metadata=[("authorization", "Bearer right")])
    assert len(taken) == 1


def test_tls(serve, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]  # fmt: skip
    subprocess.run([str(one) for one in command], check=True, capture_output=True)
    server, taken = serve(certificate=(key.read_bytes(), certificate.read_bytes()))
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    export(server, SAMPLE, grpc.secure_channel(f"localhost:{server.port}", credentials))
    assert len(taken) == 1


def test_an_address_in_use_is_told(serve):
    server, _ = serve()
    with pytest.raises(SettingsError, match="cannot listen"):
        Server(lambda *_: None, port=server.port)
