"""The log on standard error: a line of text, or of JSON, for each record.

    2026-11-25 21:48:04,123 INFO listening on tcp://127.0.0.1:5570
    {"time": "2026-11-25T21:48:04.123Z", "level": "info", "logger": "kvzmq.server", "event": "listening",
     "message": "listening on tcp://127.0.0.1:5570", "endpoint": "tcp://127.0.0.1:5570"}       (one line)

Callers name the event and its fields in `extra`: `_log.info(text, extra={"event": "listening", "endpoint":
url})`. Fields have units in their names. A record is one line whatever stands in it, so no peer can forge one.
"""

from __future__ import annotations

import json
import logging
import sys
import time

FORMATS = ("text", "json")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}
"""What every record has; the rest are fields."""

_log = logging.getLogger(__name__)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return super().formatMessage(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", None),
            "message": record.getMessage(),
        }
        found |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


def set_up(level: str, log_format: str) -> None:
    """Log to standard error from `level` on, as `text` or `json`; may be called again to change both."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def last_word(message: str, event: str, exit_code: int) -> None:
    """Say on standard error why the process ends, at every level: as a person at a terminal reads it, or in JSON."""
    handlers = logging.getLogger().handlers
    if handlers and isinstance(handlers[0].formatter, _Json):
        _log.critical("%s", message, extra={"event": event, "exit_code": exit_code})
    else:
        print(f"kvzmq: {message}", file=sys.stderr, flush=True)
