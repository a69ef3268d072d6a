"""The form of what is printed on stderr: lines for people, or one JSON object a line.

LMMPRESS_LOG says which, in a pod and for the processes that a process starts; `lmmpress --log json` sets it. In the
form json everything that Python code prints on stderr becomes an object: lines of ours, of other libraries, warnings.
"""

import io
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from lmmpress.errors import UserError, traceback_of
from lmmpress.printing.terminal import fit

LOG = "LMMPRESS_LOG"
"""The environment variable with the form."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_KIND = re.compile(r"(error|warning|note): ")
_LEVELS = {"error": "error", "warning": "warning", "note": "info"}


class LogForm(StrEnum):
    """Lines for people, or JSON."""

    text = "text"
    json = "json"


def log_form() -> LogForm:
    """The form that the environment asks for; UserError if it is none."""
    given = os.environ.get(LOG, "").strip()
    try:
        return LogForm(given or LogForm.text)
    except ValueError:
        raise UserError(f"{LOG} is {fit(given)!r}: it is {' or '.join(LogForm)}") from None


@contextmanager
def logging_in_form(form: LogForm | None = None) -> Iterator[None]:
    """What is printed on stderr in this block, also by processes that it starts, has a form; without one, that which
    the environment asks for."""
    if form is None:
        with _objects_on_stderr():
            yield
        return
    before = os.environ.get(LOG)
    os.environ[LOG] = form.value
    try:
        with _objects_on_stderr():
            yield
    finally:
        if before is None:
            del os.environ[LOG]
        else:
            os.environ[LOG] = before


@contextmanager
def _objects_on_stderr() -> Iterator[None]:
    if not _is_json() or isinstance(sys.stderr, _Objects):
        yield
        return
    before, objects = sys.stderr, _Objects(sys.stderr)
    handler, root = _Handler(objects), logging.getLogger()
    sys.stderr = objects
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        objects.flush()
        sys.stderr = before


def log(level: str, message: str, **values: Any) -> None:
    """Print a line in the form json, with further `values`."""
    stream = sys.stderr if isinstance(sys.stderr, _Objects) else _Objects(sys.stderr)
    stream.put(level, message, **values)


def log_traceback(error: BaseException) -> None:
    """Print the traceback of an error on stderr, without secrets."""
    if _is_json():
        *_, last = traceback.format_exception_only(error)
        log("error", last.strip(), traceback=traceback_of(error))
    else:
        print(traceback_of(error), file=sys.stderr)


def _is_json() -> bool:
    return os.environ.get(LOG, "").strip() == LogForm.json


def as_text(line: str) -> str:
    """A line of a log in its form for people, whichever form it has: `error: ...`."""
    found = _object(line)
    if found is None or "message" not in found:
        return line
    level, message = found.get("level"), str(found["message"])
    return f"{level}: {message}" if level in ("error", "warning") and "traceback" not in found else message


def _object(line: str) -> dict[str, Any] | None:
    """The object in a line of the form json; None if it is no such line."""
    if not line.startswith('{"time": '):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class _Objects(io.TextIOBase):
    """A stream on which each line becomes an object. Objects are printed whole, whatever thread they come from."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun: dict[int, str] = {}  # lines by the threads that print them: print ends a line in a second call
        self._process, self._own_lock = os.getpid(), threading.RLock()  # a destructor may print while this thread does

    def put(self, level: str, message: str, **values: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        found = {"time": at, "level": level, "message": fit(message)} | values
        speaks_all = (self._stream.encoding or "").lower().replace("-", "") == "utf8"
        self._print(json.dumps(found, ensure_ascii=not speaks_all))

    def write(self, text: str) -> int:
        with self._lock:
            thread = threading.get_ident()
            *lines, self._begun[thread] = re.split(r"[\r\n]", self._begun.get(thread, "") + text)
            for line in lines:
                self._line(line)
        return len(text)

    @property
    def _lock(self) -> threading.RLock:
        if os.getpid() != self._process:  # forked, perhaps while a thread that is not there any more held it
            self._process, self._own_lock = os.getpid(), threading.RLock()
        return self._own_lock

    def flush(self) -> None:
        with self._lock:
            self._line(self._begun.pop(threading.get_ident(), ""))
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def writable(self) -> bool:
        return True

    def _line(self, line: str) -> None:
        plain = _COLOURS.sub("", line).rstrip()
        if not plain:
            return
        if _object(plain) is not None:  # of a process that this one has started, or of the trigger's server
            self._print(plain)
        elif kind := _KIND.match(plain):
            self.put(_LEVELS[kind[1]], plain[kind.end() :])
        else:
            self.put("info", plain)

    def _print(self, line: str) -> None:
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class _Handler(logging.Handler):
    """What other libraries log, from warnings on."""

    def __init__(self, objects: _Objects) -> None:
        super().__init__(logging.WARNING)
        self._objects = objects

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "error" if record.levelno >= logging.ERROR else "warning"
            values = {"logger": record.name}
            if record.exc_info and record.exc_info[1] is not None:
                values["traceback"] = traceback_of(record.exc_info[1])
            self._objects.put(level, record.getMessage().strip(), **values)
        except Exception:
            self.handleError(record)
