"""A real Kafka that lets clients in by certificate or by password only, with rights for each of them.

Listeners: ``SASL_SSL`` (SCRAM-SHA-512), ``SSL`` (a client certificate is required), and a plain one on loopback for the
broker itself and for the test, whose user may do everything. Certificates are made by ``openssl``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.broker import Broker, free_port
from streams.schema.topics import ALL, DEAD_LETTERS, RAW, RAW_LATENCIES, RAW_PROFILES, RESULTS

PASSWORD = "canary-kafka-6f1d"
PROCESSES = ("topics", "agent", "worker", "sink")

_TOPIC, _GROUP, _CLUSTER = 2, 3, 4
_READ, _WRITE, _CREATE, _DESCRIBE, _DESCRIBE_CONFIGS = 3, 4, 5, 8, 10
_LITERAL, _ALLOW = 3, 3


class Authority:
    """A certificate authority of its own; ``certificate`` gives (certificate file, key file)."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.file = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN=test {name}", "-keyout", self._key, "-out", self.file,
        )  # fmt: skip

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Return a certificate for ``CN=name`` on loopback, signed by this authority, and its key."""
        certificate, key, request = (self.directory / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        extensions = self.directory / "extensions"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", "2",
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


class SecureBroker(Broker):
    """One broker process with users, certificates and rights. ``port`` is the plain listener's."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory, free_port(), free_port(), heap="256m")
        self.sasl_port, self.tls_port = free_port(), free_port()
        self._authority = authority
        certificate, key = authority.certificate("broker")
        self._keystore = authority.directory / "broker-keystore.pem"
        self._keystore.write_bytes(key.read_bytes() + certificate.read_bytes())

    def _format_options(self) -> tuple[str, ...]:
        return tuple(
            text
            for name in PROCESSES
            for text in ("--add-scram", f"SCRAM-SHA-512=[name={name},iterations=4096,password={PASSWORD}]")
        )

    def _configuration(self) -> str:
        text = super()._configuration()
        replaced = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port},"
            f"PASSWORDS://127.0.0.1:{self.sasl_port},CERTIFICATES://127.0.0.1:{self.tls_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port},"
            f"PASSWORDS://127.0.0.1:{self.sasl_port},CERTIFICATES://127.0.0.1:{self.tls_port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PASSWORDS:SASL_SSL,"
            "CERTIFICATES:SSL",
        }
        kept = [line for line in text.splitlines() if line.partition("=")[0] not in replaced]
        return "\n".join([*kept, *(f"{key}={value}" for key, value in replaced.items()), self._secured()]) + "\n"

    def _secured(self) -> str:
        return f"""\
ssl.keystore.type=PEM
ssl.keystore.location={self._keystore}
ssl.truststore.type=PEM
ssl.truststore.location={self._authority.file}
listener.name.passwords.ssl.client.auth=none
listener.name.certificates.ssl.client.auth=required
listener.name.certificates.ssl.principal.mapping.rules=RULE:^CN=([a-z]+)$/$1/
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.passwords.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false"""

    async def grant(self, prefix: str, group: str) -> None:
        """Give each process the rights that ``docs/security.md`` lists, for topics with a prefix and one group name."""
        await _grant(self.address, rights(prefix, group))


def rights(prefix: str, group: str) -> list[tuple[str, int, str, int]]:
    """Return (user, kind of resource, its name, operation) of everything that the processes may do, and no more."""
    listed: list[tuple[str, int, str, int]] = [("topics", _CLUSTER, "kafka-cluster", _CREATE)]

    def allow(user: str, topics, *operations: int) -> None:
        listed.extend((user, _TOPIC, prefix + topic.name, operation) for topic in topics for operation in operations)

    allow("topics", ALL, _DESCRIBE, _DESCRIBE_CONFIGS)
    allow("agent", RAW, _WRITE)
    allow("worker", (RAW_PROFILES, RAW_LATENCIES), _READ)
    allow("worker", RESULTS, _WRITE)
    allow("sink", (*RAW, *RESULTS), _READ)
    allow("sink", (DEAD_LETTERS,), _WRITE)
    listed.extend((user, _GROUP, f"{group}-{user}", _READ) for user in ("worker", "sink"))
    return listed


async def _grant(address: str, listed: list[tuple[str, int, str, int]]) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.protocol.admin import CreateAclsRequest

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        for user, kind, name, operation in listed:
            request = CreateAclsRequest(kind, name, _LITERAL, f"User:{user}", "*", operation, _ALLOW)
            answer = await admin._send_to_controller(request)
            assert all(code == 0 for code, _message in answer.creation_responses), answer
    finally:
        await admin.close()
