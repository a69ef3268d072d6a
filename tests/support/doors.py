"""Doors to what extras bring, tried one after the other in a process that lacks them (`support.without`)."""

import contextlib
import importlib
import io
import os
import pkgutil
import sys
from typing import Any

Told = dict[str, Any]


def commands(doors: dict[str, list[str]], environment: dict[str, str] | None = None) -> dict[str, Told]:
    """What commands print, and the lines that they are refused with."""
    from typer.testing import CliRunner

    from lmmpress.cli.app import app
    from lmmpress.errors import UserError

    os.environ.update(environment or {})
    found = {}
    for name, arguments in doors.items():
        result = CliRunner().invoke(app, arguments)
        error = result.exception
        lines = list(error.lines) if isinstance(error, UserError) else [repr(error)] if error else []
        found[name] = {"code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr, "lines": lines}
    return found


def functions(plan: dict[str, Any], out: str) -> dict[str, list[str]]:
    """The lines of what the library refuses."""
    import lmmpress
    from lmmpress.errors import UserError
    from lmmpress.tracking.client import local_store

    doors = {
        "lineage": lambda: lmmpress.lineage(plan, out),
        "Lineage": lambda: lmmpress.Lineage(local_store(lmmpress.open_checkpoint(plan["model"])), "x").take_over("key"),
        "locate": lambda: lmmpress.locate("models:/ads/1"),
        "tracking URI": lambda: lmmpress.compress(plan, out, recorder="http://mlflow:5000"),
        "bucket": lambda: lmmpress.open_checkpoint("s3://bucket/model"),
        "kfp-local": lambda: lmmpress.compress(plan, out, engine="kfp-local"),
    }
    found = {}
    for name, attempt in doors.items():
        try:
            attempt()
            found[name] = ["was not refused"]
        except UserError as error:
            found[name] = list(error.lines)
    return found


def first_task(plan: dict[str, Any], tracking_uri: str) -> str:
    """What the first task of a pipeline says."""
    from lmmpress.plan import parse_plan
    from lmmpress.tasks.preparation import prepare
    from support.first_task import asked_by

    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        prepare(**asked_by(parse_plan(plan), "x"))
    return told.getvalue()


def modules_that_cannot_be_imported() -> list[str]:
    """The modules of lmmpress that need what this process lacks."""
    import lmmpress

    found = []
    for module in pkgutil.walk_packages(lmmpress.__path__, "lmmpress.", onerror=lambda name: None):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError:
            found.append(module.name)
    assert "torch" in sys.modules
    return found


def metrics_refused(names: list[str]) -> list[str]:
    """The lines that metrics are refused with as soon as a task of the data has them."""
    from lmmpress.errors import UserError
    from lmmpress.metrics import metrics_of

    found: list[str] = []
    for name in names:
        try:
            metrics_of({"default": name}, ["task"])
        except UserError as error:
            found += error.lines
    return found
