from __future__ import annotations

import contextvars
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from mobula.core import log


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = list(root.handlers), root.level
    log.configure("webapi", "lab-a-api-01", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = before


def test_a_line_is_one_json_object_that_says_who_and_when(lines: io.StringIO) -> None:
    log.get_logger().info("started", port=8080)
    event = json.loads(lines.getvalue())
    assert event | {"time": 0} == {
        "event": "started", "level": "info", "service": "webapi", "host": "lab-a-api-01", "port": 8080, "time": 0,
    }  # fmt: skip
    assert event["time"] > 1_700_000_000


def test_a_line_carries_the_request_it_belongs_to(lines: io.StringIO) -> None:
    def handle() -> None:
        log.bind_request("r-1")
        log.get_logger().info("inside")

    contextvars.copy_context().run(handle)
    log.get_logger().info("outside")
    inside, outside = (json.loads(line) for line in lines.getvalue().splitlines())
    assert inside["request_id"] == "r-1"
    assert "request_id" not in outside


def test_the_line_of_a_request_is_like_any_other(lines: io.StringIO) -> None:
    def handle() -> None:
        log.bind_request("r-1")
        log.get_logger().info("request", status=204, path="/\n")

    log.request_line(logging.INFO, "r-1", {"status": 204, "path": "/\n"})
    log.request_line(logging.DEBUG, "r-2", {})
    contextvars.copy_context().run(handle)
    written, plain = (json.loads(line) | {"time": 0} for line in lines.getvalue().splitlines())
    assert written == plain


def test_an_exception_is_told_on_its_line(lines: io.StringIO) -> None:
    try:
        raise OSError("disk\ngone")
    except OSError as error:
        log.get_logger().error("write failed", exc_info=error)
    assert len(lines.getvalue().splitlines()) == 1
    assert "OSError" in json.loads(lines.getvalue())["exception"]


def test_libraries_log_the_same_way_and_only_what_matters(lines: io.StringIO) -> None:
    logging.getLogger("kazoo").info("chatter")
    logging.getLogger("kazoo").warning("connection %s lost", 1)
    event = json.loads(lines.getvalue())
    assert (event["event"], event["logger"], event["level"]) == ("connection 1 lost", "kazoo", "warning")


def test_below_its_level_nothing_is_said(lines: io.StringIO) -> None:
    log.get_logger().debug("detail")
    assert lines.getvalue() == ""
