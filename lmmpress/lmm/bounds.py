"""Limits the numbers in a config, since they decide how many modules and how much memory transformers allocates.

The limits are far above every existing model. They make a damaged or hostile config fail at once.
"""

import re
from typing import Any

from lmmpress.errors import UserError

MOST_LAYERS = 1024
_MOST_LABELS = 1 << 16
_LARGEST = 1 << 40
_LAYERS = re.compile(r"(.*_)?(n?_?layers?|blocks|depths?|experts|stages)(_.*)?")


def check_bounds(config: dict[str, Any]) -> None:
    """Raise UserError if a number of a config, at any depth, is larger than in any model."""
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
            raise UserError(f"{where} is {_in_short(value)}, but no model has more than {most}")


def _in_short(number: int) -> str:
    return str(number) if abs(number) < 10**12 else f"a number of {len(str(abs(number)))} digits"
