"""OTLP profiles over gRPC: ``opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export``.

A call is answered when its profiles are published. Refusals have OTLP's codes: what may succeed later is UNAVAILABLE
or RESOURCE_EXHAUSTED. Messages may be gzipped (gRPC's own compression).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from collectors.ingest import otlp
from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import Series
from collectors.scrapers.pprof import MAX_BYTES
from streams.schema.errors import PerfstreamError, SchemaError, SettingsError

SERVICE = "opentelemetry.proto.collector.profiles.v1development.ProfilesService"
METHOD = f"/{SERVICE}/Export"
Publish = Callable[[list[Series], str], None]
"""Publishes the series of one call from a peer's address; returns when that is certain, raises when it is not."""
Check = Callable[[Mapping[str, str]], None]
"""Lets a call in by its headers (names as in HTTP: ``Authorization``), or raises ``RefusedError``."""

_LOG = logging.getLogger("perfstream.ingest")
_EXHAUSTED = (413, 429)


class Server:
    """The service on one address. Thread-safe: ``publish`` is called from several threads at once."""

    def __init__(
        self,
        publish: Publish,
        host: str = "127.0.0.1",
        port: int = 4317,
        *,
        check: Check = lambda _headers: None,
        certificate: tuple[bytes, bytes] | None = None,
        max_bytes: int = MAX_BYTES,
        workers: int = 2,
        max_waiting: int = 16,
    ) -> None:
        """Bind the address; nothing is served before ``start``.

        Args:
            publish: what takes the decoded series.
            host: the address to listen on.
            port: 0 takes a free one, see ``self.port``.
            check: lets a call in, or not.
            certificate: (key, certificate chain) in PEM; None serves without TLS.
            max_bytes: of one message, inflated.
            workers: how many calls are decoded and published at once.
            max_waiting: how many calls may be under way; further ones are refused with RESOURCE_EXHAUSTED. Their
                messages are held in memory, so ``max_bytes`` times this is the most that they take.

        Raises:
            SettingsError: the address cannot be used.
        """
        self._publish, self._check, self._max_bytes = publish, check, max_bytes
        self._server = grpc.server(
            ThreadPoolExecutor(workers, "otlp"),
            maximum_concurrent_rpcs=max_waiting,
            options=[("grpc.max_receive_message_length", max_bytes), ("grpc.so_reuseport", 0)],
        )
        # Messages stay bytes: they are decoded in columns.
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    SERVICE, {"Export": grpc.unary_unary_rpc_method_handler(self.export)}
                )
            ]
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificate is None:
                self.port: int = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials([certificate]))
        except (RuntimeError, ValueError) as error:
            raise SettingsError(
                f"OTLP over gRPC cannot listen on {address}: {error}; set PERFSTREAM_INGEST_GRPC_PORT to another port, "
                "or to -1 for none"
            ) from error

    def start(self) -> None:
        """Begin to serve."""
        self._server.start()

    def stop(self, grace_s: float = 3.0) -> None:
        """Take no more calls, wait for those under way, at most ``grace_s`` seconds."""
        self._server.stop(grace_s).wait()

    def export(self, request: bytes, context: Any) -> bytes:  # noqa: ANN401 - grpcio has no types
        """Answer one call with an empty ``ExportProfilesServiceResponse``: all of it was taken."""
        code, message = self._taken(request, context)
        if code is not grpc.StatusCode.OK:
            context.abort(code, message)
        return b""

    def _taken(self, request: bytes, context: Any) -> tuple[grpc.StatusCode, str]:  # noqa: ANN401
        headers = {str(name).title(): str(value) for name, value in context.invocation_metadata()}
        try:
            self._check(headers)
            series = otlp.decode(request, otlp.PROTO, self._max_bytes)
            if series:
                self._publish(series, _address(context.peer()))
        except RefusedError as error:
            exhausted = error.status in _EXHAUSTED
            name = "RESOURCE_EXHAUSTED" if exhausted else error.code.upper()
            return getattr(grpc.StatusCode, name, grpc.StatusCode.UNKNOWN), str(error)
        except SchemaError as error:
            return grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except PerfstreamError as error:
            return grpc.StatusCode.UNAVAILABLE if error.retriable else grpc.StatusCode.INTERNAL, str(error)
        except Exception:  # noqa: BLE001 - the client gets an answer, the log the trace
            _LOG.exception("an OTLP call failed")
            return grpc.StatusCode.INTERNAL, "an unexpected error; the log has it"
        return grpc.StatusCode.OK, ""


def _address(peer: str) -> str:
    """Return the address in gRPC's name of a peer: ``ipv4:127.0.0.1:4711``, ``ipv6:%5B::1%5D:4711``."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return "127.0.0.1"
    return rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
