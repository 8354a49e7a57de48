"""Settings of ``perfstream ingest``, as TOML or ``PERFSTREAM_INGEST_*`` / ``PERFSTREAM_KAFKA_*`` variables."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from runtime.settings import HttpSettings, KafkaSettings, Secret
from streams.schema.errors import SettingsError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MIB = 1 << 20
_POSITIVE = (
    "max_connections", "max_body_bytes", "max_inflight_bytes", "max_decoding", "ack_timeout_s", "reject_newer_s",
    "reject_older_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """The ``[ingest]`` table.

    Beyond loopback the endpoint wants ``token`` (a bearer token, or the password of basic authentication) and
    ``cert_file`` (PEM, with ``key_file``), or ``allow_plain_http``, which says that something else encrypts.
    """

    host: str = "127.0.0.1"
    port: int = 4040
    grpc_port: int = 4317
    """Of OTLP over gRPC; 0 takes a free one, -1 is none."""
    token: Secret = Secret("")
    cert_file: str = ""
    key_file: str = ""
    allow_plain_http: bool = False
    max_connections: int = 512
    max_body_bytes: int = 32 * MIB
    """Of one request, as sent and as inflated."""
    max_inflight_bytes: int = 128 * MIB
    """Of all bodies from their first byte until Kafka has acknowledged them; beyond it requests are refused (429)."""
    max_decoding: int = 1
    """How many bodies are decoded at once: the largest takes some hundred MB for a moment. Measured: two together take
    30 % more CPU for each, and no less time, as the interpreter runs one of them at a time."""
    ack_timeout_s: float = 10.0
    """How long a request waits for Kafka's acknowledgement before it is answered with 503."""
    reject_newer_s: float = 600.0
    """Profiles from further ahead than this are refused."""
    reject_older_s: float = 7 * 86_400.0
    """Profiles from further back than this are refused: what is older would be stored under another time."""

    def check(self) -> None:
        """Refuse an address or a limit that cannot be served.

        Raises:
            SettingsError: the address is reachable from other machines and no token or certificate is set, or a limit
                is not positive.
        """
        if self.host not in LOOPBACK and not self.token:
            raise SettingsError(
                f"ingest will not listen on {self.host} without a token; set PERFSTREAM_INGEST_TOKEN, "
                "or bind to 127.0.0.1"
            )
        if self.key_file and not self.cert_file:
            raise SettingsError("ingest.key_file without ingest.cert_file; set both for https")
        if self.plain_beyond_loopback and not self.allow_plain_http:
            raise SettingsError(
                f"ingest will not listen on {self.host} in plain HTTP, which anybody on the way reads; set "
                "PERFSTREAM_INGEST_CERT_FILE and PERFSTREAM_INGEST_KEY_FILE, or PERFSTREAM_INGEST_ALLOW_PLAIN_HTTP=true"
            )
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise SettingsError(f"ingest.{name} must be above 0")

    @property
    def plain_beyond_loopback(self) -> bool:
        """Return whether the token and the profiles would travel readable between machines."""
        return self.host not in LOOPBACK and not self.cert_file


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Everything that ``perfstream ingest`` reads."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    ingest: IngestOptions = field(default_factory=IngestOptions)
    cluster: str = "default"
    node: str = field(default_factory=socket.gethostname)
    topic_prefix: str = ""
    log_level: str = "info"
