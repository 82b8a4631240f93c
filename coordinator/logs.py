"""The coordinator's log: one line per notable event, key=value after the message."""

import json
import logging
import re
import sys
from typing import Any

_PLAIN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_CREDENTIALS = re.compile(r"(\w+://)[^/\s]*@")


class LineFormatter(logging.Formatter):
    """2026-01-01T12:00:00.000Z INFO trial completed study=team/run trial=3 detail="all iterations done"."""

    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, without credentials."""
        pairs = ((k, v) for k, v in record.__dict__.items() if k not in _PLAIN and v not in (None, ""))
        words = [self.formatTime(record), record.levelname, record.getMessage(), *(f"{k}={_word(v)}" for k, v in pairs)]
        text = " ".join(words)
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return _CREDENTIALS.sub(r"\1", text)


def _word(value: Any) -> str:
    text = str(value)
    return text if re.fullmatch(r"[\w./:+-]+", text) else json.dumps(text)


def configure(level: str) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger("hpopt")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
