"""Structured logs: one JSON line per event on standard error, each with the request it belongs to."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, TextIO, cast

import msgspec
import structlog

_encoder = msgspec.json.Encoder(enc_hook=str)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger())


def bind_request(request_id: str) -> None:
    """From here on, in this task and those it starts, every line carries this request id."""
    structlog.contextvars.bind_contextvars(request_id=request_id)


def configure(service: str, host: str, *, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up this process's logs, those of libraries that use the standard `logging` included."""
    number = logging.getLevelNamesMapping()[level.upper()]
    out = stream or sys.stderr

    def stamp(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["time"] = round(time.time(), 6)
        event["service"] = service
        event["host"] = host
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(max(number, logging.WARNING))


def _render(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    return _encoder.encode(event).decode()


class _Bridge(logging.Handler):
    """Hands records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        exc_info = record.exc_info if record.exc_info and record.exc_info[1] is not None else None
        get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=exc_info)
