"""The server's log: one line for each event, without secrets."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from lmmpress.errors import UserError
from lmmpress.progress.log import LogForm
from lmmpress.trigger.server import logs

TOKEN = "t0ken-" + "z" * 30


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    loggers = [logging.getLogger(name) for name in ("", *logs.PACKAGES)]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield io.StringIO()
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def test_an_event_is_one_line_of_json(stream: io.StringIO) -> None:
    logs.begin(LogForm.json, lambda: [], stream)
    logs.note("request", status=200, by=None, route="/x\n{}", milliseconds=1.5)
    (line,) = stream.getvalue().splitlines()
    value = json.loads(line)
    del value["time"]
    assert value == {"level": "info", "event": "request", "status": 200, "route": "/x {}", "milliseconds": 1.5}


def test_an_event_is_one_line_of_text(stream: io.StringIO) -> None:
    logs.begin(LogForm.text, lambda: [], stream)
    logs.note("model not looked at", logging.WARNING, UserError("MLflow is away"), model="antgmm")
    assert stream.getvalue().partition(" ")[2] == ('warning model not looked at model=antgmm error="MLflow is away"\n')


def test_a_message_of_a_stranger_makes_no_event(stream: io.StringIO) -> None:
    logs.begin(LogForm.text, list, stream)
    logs.note("failed", exception=ValueError("x\n2026-11-29T00:00:00.000Z info request by=mei\u2066"))
    event, *rest = stream.getvalue().splitlines()
    assert " info failed" in event
    assert all(line.startswith("  ") for line in rest)
    assert "\u2066" not in stream.getvalue()


@pytest.mark.parametrize("form", LogForm)
def test_no_line_holds_a_secret(stream: io.StringIO, form: LogForm) -> None:
    logs.begin(form, lambda: [TOKEN], stream)
    try:
        raise RuntimeError(f"Authorization: {TOKEN} at https://mei:pa55w0rd@host/")
    except RuntimeError as error:
        logs.note("fault", logging.ERROR, error, header=f"Bearer {TOKEN}")
    logging.getLogger("uvicorn.error").error("seen %s", TOKEN)
    assert "RuntimeError" in stream.getvalue()
    assert TOKEN not in stream.getvalue()
    assert "pa55w0rd" not in stream.getvalue()
    if form == "json":
        assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == ["error", "error"]


def test_other_packages_are_only_heard_when_they_warn(stream: io.StringIO) -> None:
    logs.begin(LogForm.text, lambda: [], stream)
    logging.getLogger("urllib3.connectionpool").info("new connection")
    logging.getLogger("mlflow.x").warning("slow")
    assert "new connection" not in stream.getvalue()
    assert "logger=mlflow.x" in stream.getvalue()
