"""What a request is refused with: an HTTP status, a code of the Connect protocol, one line, and a word for counters."""

from __future__ import annotations

from streams.schema.errors import PerfstreamError

CODES = {
    400: "invalid_argument", 401: "unauthenticated", 403: "permission_denied", 404: "unimplemented",
    413: "invalid_argument", 429: "resource_exhausted", 500: "internal", 503: "unavailable",
}  # fmt: skip
"""The Connect protocol's names for HTTP statuses, as Pyroscope writes them; any other is ``unknown``."""


class RefusedError(PerfstreamError):
    """A request that is answered with an error; ``reason`` is one word for counters."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        """Return the code of the Connect protocol."""
        return CODES.get(self.status, "unknown")
