"""ClickHouse's error codes as this server raises and maps them.

Source of the mapping: ``exceptionCodeToHTTPStatus`` of ClickHouse's HTTP interface. The one deviation is code 202 (too
many queries), which is 503 here so that clients and proxies know to come again.
"""

from __future__ import annotations

import re

from streams.schema.errors import StoreRejectedError

_BAD_REQUEST = frozenset(
    {6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676}
)
_NOT_FOUND = frozenset({46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511})
_FORBIDDEN = frozenset({192, 193, 497, 512, 516})
_OTHER = {194: 401, 229: 413, 48: 501, 209: 503, 76: 503, 439: 503, 202: 503, 381: 411, 159: 408, 719: 415}

_CODE = re.compile(r"^(?:Failed to create connection: )?(?:Code: (\d+)\. DB::\w*Exception: )+")


class QueryError(StoreRejectedError):
    """A statement was refused or failed. ``code`` is ClickHouse's error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def of(cls, code: int, name: str, message: str) -> QueryError:
        """Return an error of this server itself in ClickHouse's wording."""
        return cls(code, f"Code: {code}. DB::Exception: {message}. ({name})")

    @classmethod
    def from_engine(cls, error: BaseException) -> QueryError:
        """Return what the engine raised; an unknown kind of failure is code 1001 (STD_EXCEPTION)."""
        text = str(error).strip()
        found = _CODE.match(text)
        if found is None:
            return cls.of(1001, "STD_EXCEPTION", text[:1000])
        return cls(int(found.group(1)), text)

    @property
    def status(self) -> int:
        """The HTTP status that ClickHouse answers with for this code."""
        return http_status(self.code)


def http_status(code: int) -> int:
    """Return the HTTP status of one of ClickHouse's error codes; 500 when it has none of its own."""
    if code in _BAD_REQUEST:
        return 400
    if code in _NOT_FOUND:
        return 404
    if code in _FORBIDDEN:
        return 403
    return _OTHER.get(code, 500)
