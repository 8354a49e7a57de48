"""The one tree of exceptions.

::

    PerfstreamError                 retriable  meaning
    ├── SettingsError               no         a setting is missing or wrong; says which and what to do
    ├── UsageError                  no         a command's argument is wrong
    ├── SchemaError                 no         a record does not keep the contract -> dead letter
    │   ├── UnknownVersionError     no         its schema version was never released
    │   └── CorruptRecordError      no         its bytes cannot be decoded
    ├── TopicMismatchError          no         an existing topic disagrees with its declaration
    ├── UnavailableError            yes        a server did not answer; the same call may succeed later
    │   ├── BrokerUnavailableError  yes
    │   ├── StoreUnavailableError   yes
    │   └── TargetUnavailableError  yes        a scrape target
    ├── StoreRejectedError          no         the store understood the statement and refused it
    ├── BackpressureError           yes        wait ``retry_after_s`` before the next try
    └── KernelError                 no         a probe cannot be loaded here; says what is missing
"""

from __future__ import annotations

from typing import ClassVar


class PerfstreamError(Exception):
    """Base of everything that perfstream raises on purpose."""

    retriable: ClassVar[bool] = False


class SettingsError(PerfstreamError):
    """A setting is missing or wrong."""


class UsageError(PerfstreamError):
    """A command was called with an argument that it cannot take."""


class SchemaError(PerfstreamError):
    """A record does not keep the contract; it belongs in the dead-letter topic."""

    reason: ClassVar[str] = "schema"


class UnknownVersionError(SchemaError):
    """The record's schema name or version was never released."""

    reason: ClassVar[str] = "unknown_version"


class CorruptRecordError(SchemaError):
    """The record's bytes or headers cannot be decoded."""

    reason: ClassVar[str] = "corrupt"


class TopicMismatchError(PerfstreamError):
    """An existing topic disagrees with its declaration."""


class UnavailableError(PerfstreamError):
    """A server did not answer; the same call may succeed later."""

    retriable: ClassVar[bool] = True


class BrokerUnavailableError(UnavailableError):
    """Kafka did not answer."""


class StoreUnavailableError(UnavailableError):
    """ClickHouse did not answer."""


class TargetUnavailableError(UnavailableError):
    """A scrape target did not answer, or not with a profile; ``reason`` is one word for counters.

    ``status`` is that of its HTTP answer, 0 when it gave none.
    """

    def __init__(self, message: str, reason: str = "unavailable", status: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status


class StoreRejectedError(PerfstreamError):
    """ClickHouse understood the statement and refused it."""


class BackpressureError(PerfstreamError):
    """The receiver is full: wait ``retry_after_s`` seconds before the next try."""

    retriable: ClassVar[bool] = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class KernelError(PerfstreamError):
    """A probe cannot be loaded on this machine; the message says what is missing."""
