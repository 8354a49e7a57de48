"""Structured log lines: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time

_ROUTINE = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, process, logger, message, and the ``extra`` fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one record."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _ROUTINE}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(process: str, level: str = "info") -> None:
    """Send every log record of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Once:
    """Logs each key once per ``every_s`` seconds and counts the rest, so that bad input cannot flood the log."""

    def __init__(self, logger: logging.Logger, every_s: float = 300.0, bound: int = 1024) -> None:
        self._logger = logger
        self._every_s = every_s
        self._bound = bound
        self._seen: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def warning(self, key: str, message: str, **extra: object) -> bool:
        """Log a warning unless this key was logged lately; returns whether it was logged."""
        now = time.monotonic()
        with self._lock:
            last, suppressed = self._seen.get(key, (-self._every_s, 0))
            if now - last < self._every_s:
                self._seen[key] = (last, suppressed + 1)
                return False
            if len(self._seen) >= self._bound:
                self._seen.clear()
            self._seen[key] = (now, 0)
        self._logger.warning(message, extra={**extra, "suppressed": suppressed} if suppressed else extra)
        return True
