"""The server's log: one line for each event, as text or as JSON, without secrets."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from textwrap import indent
from typing import IO, Any

from lmmpress.errors import UserError, traceback_of
from lmmpress.printing.credentials import HIDDEN
from lmmpress.printing.one_line import printable
from lmmpress.progress.log import LogForm

_LOGGER = logging.getLogger("lmmpress.trigger")
_LONGEST = 2000  # characters of a value
PACKAGES = (
    "mlflow",
    "urllib3",
    "alembic",
    "sqlalchemy",
    "kubernetes",
    "filelock",
    "asyncio",
    "requests",
    "uvicorn",
    "uvicorn.error",
)
"""The packages of which only warnings are logged."""


def note(event: str, level: int = logging.INFO, exception: BaseException | None = None, **fields: object) -> None:
    """Log an event, a few words that never change, with what is special about it in `fields`.

    Of an `exception` the traceback is logged, unless it is a UserError, whose lines say all.
    """
    if isinstance(exception, UserError):
        fields["error"], exception = "; ".join(exception.lines), None
    _LOGGER.log(level, event, exc_info=exception, extra={"fields": {k: v for k, v in fields.items() if v is not None}})


def begin(form: LogForm, secrets: Callable[[], Iterable[str]], stream: IO[str] | None = None) -> None:
    """Send the log of this process to `stream` (stderr), and of other packages only what is a warning or worse.

    `secrets` gives the texts that no line may hold, at the time of each line.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Lines(form, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # else it sends its log past this handler
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)


class _Lines(logging.Formatter):
    def __init__(self, form: LogForm, secrets: Callable[[], Iterable[str]]) -> None:
        super().__init__()
        self._form, self._secrets = form, secrets

    def format(self, record: logging.LogRecord) -> str:
        secrets = tuple(sorted(filter(None, self._secrets()), key=len, reverse=True))
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values: dict[str, Any] = {"event": record.getMessage(), **getattr(record, "fields", {})}
        if record.name != _LOGGER.name:
            values["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            values["traceback"] = traceback_of(record.exc_info[1])
        clean = {name: _clean(value, secrets, name == "traceback") for name, value in values.items()}
        level = record.levelname.lower()
        if self._form == LogForm.json:
            return json.dumps({"time": at, "level": level, **clean}, ensure_ascii=False)
        event, trace = clean.pop("event"), clean.pop("traceback", None)
        line = " ".join([at, level, event, *(f"{name}={_word(value)}" for name, value in clean.items())])
        # indented, so that a message with a line break in it does not look like an event
        return line if trace is None else f"{line}\n{indent(trace, '  ')}"


def _clean(value: object, secrets: tuple[str, ...], lines: bool) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return "\n".join(_safe(line, secrets) for line in text.split("\n")) if lines else _safe(text, secrets)


@lru_cache(maxsize=4096)  # most words come again with every request, and to look for credentials takes long
def _safe(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return printable(text, _LONGEST)


def _word(value: object) -> str:
    text = str(value)
    return text if text and not set(text) & set(" =\"'\n") else json.dumps(text, ensure_ascii=False)
