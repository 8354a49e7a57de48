"""Why Kafka does not let a client in, in words for a person.

aiokafka's clients say only that no server of the list could be used, whatever the cause; ``refusal`` makes one
connection of its own and returns the cause. It never returns a secret: no message of the broker or of TLS holds one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

TIMEOUT_S = 5.0
_CONNECTION = (
    "security_protocol", "ssl_context", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password",
    "sasl_kerberos_service_name", "sasl_kerberos_domain_name", "sasl_oauth_token_provider",
)  # fmt: skip


async def refusal(options: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> str:
    """Return why the first servers of a client's options do not let it in; "" when one does (now).

    Args:
        options: keyword arguments of an aiokafka client (``KafkaSettings.client_options``).
        timeout_s: seconds for each server; at most three are asked.
    """
    from aiokafka.client import collect_hosts
    from aiokafka.conn import create_conn
    from aiokafka.errors import KafkaError

    given = {name: options[name] for name in _CONNECTION if name in options}
    reason = "no server is configured"
    for host, port, _family in collect_hosts(options.get("bootstrap_servers", ""))[:3]:
        try:
            with _quiet():
                connection = await asyncio.wait_for(
                    create_conn(host, port, request_timeout_ms=int(timeout_s * 1000), **given), timeout_s
                )
        except (OSError, KafkaError, TimeoutError, ValueError, AssertionError) as error:
            reason = _words(error, str(options.get("security_protocol", "PLAINTEXT")))
        else:
            connection.close()
            return ""
    return reason


async def answers(client: Any, timeout_s: float = TIMEOUT_S) -> str:  # noqa: ANN401 - aiokafka is untyped
    """Ask a connected client's brokers for something small; returns why not when none answers, else ""."""
    from aiokafka.errors import KafkaError

    try:
        if await asyncio.wait_for(client.force_metadata_update(), timeout_s):
            return ""
    except (KafkaError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    except TimeoutError:
        return "no answer in time"
    return "no broker answers"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's own account of the same failure out of the log."""
    logger = logging.getLogger("aiokafka.conn")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _words(error: BaseException, protocol: str) -> str:
    """Return one line for what a connection ended with."""
    from aiokafka import errors

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); set kafka.ssl_cafile to its authority's"
    if isinstance(error, ValueError | AssertionError):
        return "it does not speak SASL as it should; check kafka.sasl_mechanism"
    if isinstance(error, ssl.SSLError):
        if "CERTIFICATE_REQUIRED" in str(error.reason) or "HANDSHAKE_FAILURE" in str(error.reason):
            return "it wants a client certificate; set kafka.ssl_certfile and kafka.ssl_keyfile"
        if "ALERT" in str(error.reason):
            return f"it refuses this client's certificate or TLS ({error.reason}); check kafka.ssl_certfile"
        return f"TLS failed ({error.reason}); check the port and kafka.security_protocol"
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return "it does not offer this SASL mechanism; check kafka.sasl_mechanism"
    if isinstance(error, errors.SaslAuthenticationFailed | errors.IllegalSaslStateError):
        return "it refuses the user or the password; check kafka.sasl_username and kafka.sasl_password"
    if isinstance(error, TimeoutError):
        return "no answer in time; check the address, the port and kafka.security_protocol"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is it running?"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, errors.KafkaError):
        return error.strerror
    if "SSL" in protocol:
        return (
            "it ended the connection; it may want a client certificate that it trusts: kafka.ssl_certfile, ssl_keyfile"
        )
    return "it ended the connection; check kafka.security_protocol"
