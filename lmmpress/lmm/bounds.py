"""How large the numbers of a config may be: what makes modules or memory before a single weight is read.

The limits lie far above every model there is. They are there so that a damaged or hostile config is answered at once.
"""

import re
from typing import Any

from lmmpress.errors import UserError

MOST_LAYERS = 1024
_MOST_LABELS = 1 << 16
_LARGEST = 1 << 40
_LAYERS = re.compile(r"(.*_)?(n?_?layers?|blocks|depths?|experts|stages)(_.*)?")


def check_bounds(config: dict[str, Any]) -> None:
    """Raise UserError where a number of a config, however deep it stands, is larger than any model has it."""
    _check(config, "config.json")


def _check(value: Any, where: str, key: str = "") -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _check(inner, f"{where}: {name}" if where == "config.json" else f"{where}.{name}", name)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, where, key)
    elif type(value) is int:
        most = _MOST_LABELS if key == "num_labels" else MOST_LAYERS if _LAYERS.fullmatch(key) else _LARGEST
        if abs(value) > most:
            raise UserError(f"{where} is {_in_short(value)}, and no model has more than {most}")


def _in_short(number: int) -> str:
    return str(number) if abs(number) < 10**12 else f"a number of {len(str(abs(number)))} digits"
