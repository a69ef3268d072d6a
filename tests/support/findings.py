"""What `lmmpress doctor --json` printed."""

import json
from typing import Any

from typer.testing import Result

Json = dict[str, Any]


def findings(found: Result) -> list[Json]:
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    findings: list[Json] = json.loads(found.stdout)["findings"]
    return findings


def only(found: list[Any]) -> Any:
    (one,) = found
    return one
