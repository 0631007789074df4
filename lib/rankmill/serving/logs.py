"""Structured logs: one JSON object a line, which never holds a text, a key or a message that could."""

import json
import logging
import re
import sys
import time
import traceback
from typing import Any

_SECRETS = re.compile(
    r"""(?ix)
    (\bbearer\s+)\S+
    | (\b(?:authorization|x-api-key|api-key|api_key|x-amz-signature|x-amz-credential|x-amz-security-token|access_key
        |aws_secret_access_key|token|password)['"]?\s*[:=,]\s*(?:b?['"])?)(?!bearer\b)[^\s'"&,;]+
    """
)
_FIELDS = "fields"


def event(log: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Log something that happened.

    Args:
        log: where.
        level: of `logging`.
        name: what: a word or two.
        fields: JSON-able facts; no text of a request and no header among them.
    """
    log.log(level, name, extra={_FIELDS: fields})


def where(error: BaseException) -> list[str]:
    """A traceback without messages and source lines: those may quote what a client sent."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message of a record, and the fields of an `event`; secrets in messages are masked."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact(record.getMessage()),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= {"error": type(record.exc_info[1]).__name__, "where": where(record.exc_info[1])}
        return json.dumps(line, default=str)


def redact(message: str) -> str:
    """Mask what looks like a key, a token or the signature of a URL."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2]}***", message)


def log_json(level: int = logging.INFO) -> None:
    """Write rankmill's logs to stderr as JSON, once however often it is called.

    To the process's own stderr, which Ray keeps as `worker-*.err` in its folder of logs: in a replica `sys.stderr` is a
    logger of Ray Serve's, which has a level and a format of its own.
    """
    root = logging.getLogger("rankmill")
    root.setLevel(level)
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(JsonFormatter())
        root.addHandler(handler)
        root.propagate = False
