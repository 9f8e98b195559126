"""Structured logs: one JSON line per event on standard error, each with the request it belongs to."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO, cast

import msgspec
import structlog

_encoder = msgspec.json.Encoder(enc_hook=str)


@dataclass(slots=True)
class _Lines:
    """Where this process's lines go, and what all of them say."""

    level: int
    out: TextIO
    common: dict[str, object]


_lines = _Lines(logging.CRITICAL, sys.stderr, {})  # silent until configured


def get_logger() -> structlog.typing.FilteringBoundLogger:
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger())


def bind_request(request_id: str) -> None:
    """From here on, in this task and those it starts, every line carries this request id."""
    structlog.contextvars.bind_contextvars(request_id=request_id)


def request_line(level: int, request_id: str, fields: Mapping[str, object]) -> None:
    """The line of one request, as `get_logger` would write it; its chain of processors costs as much as a small answer."""
    if level < _lines.level:
        return
    event = {
        "event": "request", **fields, "request_id": request_id, "level": logging.getLevelName(level).lower(),
        "time": round(time.time(), 6), **_lines.common,
    }  # fmt: skip
    _lines.out.write(_encoder.encode(event).decode() + "\n")
    _lines.out.flush()


def configure(service: str, host: str, *, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up this process's logs, those of libraries that use the standard `logging` included."""
    number = logging.getLevelNamesMapping()[level.upper()]
    out = stream or sys.stderr
    common: dict[str, object] = {"service": service, "host": host}
    _lines.level, _lines.out, _lines.common = number, out, common

    def stamp(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["time"] = round(time.time(), 6)
        return {**event, **common}

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
