"""Calls of OpenSSL: bytes read and written, how long each call took, and how handshakes end. Never any content.

In every libssl that a process has mapped, in containers, too; new ones are found within some 5 s. Not: programs with a
TLS of their own (Go, Rust's rustls, static OpenSSL or BoringSSL, GnuTLS), handshakes that SSL_read or SSL_write make on
the way, calls that found nothing to do yet, and calls that failed without the program asking why (SSL_get_error). Cost:
about 20 microseconds a call, paid by the program, nearly all of it for getting into the kernel; on demand.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from collectors.base import WorkloadResolver
from collectors.bpf import requirements
from collectors.bpf.loader import Programs
from collectors.events import Attributes, EventCollector
from collectors.libraries import Libraries
from collectors.wanted import Wanted
from streams.schema.errors import KernelError

_NAMES = ("libssl.so", "libssl-")
_OPERATIONS = ("read", "write", "handshake")
_TOLD = struct.Struct("<QII")


class Ssl(EventCollector):
    """Events of kind ``ssl``; detail is the operation and its bytes, latency the call's.

    A handshake's latency is from its first call to its end, however many calls that took. Result is 0 (also at the
    end of a stream), -EPROTO (TLS failed), -EIO (the connection did), -ECONNRESET (the peer closed during the
    handshake) or -ECANCELED (the program gave the handshake up).
    """

    name = "ssl"
    source = "ssl.bpf.c"
    detail_bytes = _TOLD.size

    def __init__(
        self,
        workloads: WorkloadResolver | None = None,
        *,
        cache: Path | None = None,
        ring_bytes: int | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        super().__init__(workloads, cache=cache, ring_bytes=ring_bytes, wanted=wanted)
        self._libraries: Libraries | None = None

    def attach(self, programs: Programs) -> None:
        """Find the libraries; there may be none yet.

        Raises:
            KernelError: this kernel has no uprobes.
        """
        if why := requirements.uprobes_missing():
            raise KernelError(why)
        self._libraries = Libraries(_NAMES, programs.attach_library, programs.detach)
        self._libraries.look()

    def arrange(self, records: NDArray[Any]) -> NDArray[Any]:
        """Look for new libraries now and then."""
        if self._libraries is not None:
            self._libraries.look()
        return records

    def describe(self, record: Any) -> tuple[str, Attributes]:  # noqa: ANN401 - a row of a structured array
        """Return the operation and its bytes."""
        count, what, ended = _TOLD.unpack(record["detail"].tobytes())
        operation = _OPERATIONS[what]
        if operation == "handshake":
            return operation, [("operation", operation)]
        end = [("ended", "1")] if ended else []
        return f"{operation} {count} bytes", [("operation", operation), ("bytes", str(count)), *end]
