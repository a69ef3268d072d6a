"""Reads JSON from untrusted files: size and depth are limited, numbers must be finite, faults are UserErrors."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from lmmpress.errors import UserError

_DEEPEST = 100  # levels of nested lists and objects


def read_mapping(path: Path, limit: int, where: str | None = None, nan_as_null: bool = False) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes.

    Raises UserError if the file is larger or holds anything else; `where` names the file in the error. With
    `nan_as_null` the words that Python writes for numbers that are not finite stand for null.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UserError(f"{where or path} has more than {limit} bytes; at most {limit} are allowed for this file")
    return parse_mapping(data, where or str(path), nan_as_null=nan_as_null)


def parse_mapping(data: bytes, where: str, unique: bool = False, nan_as_null: bool = False) -> dict[str, Any]:
    """The JSON object in these bytes. Raises UserError if they hold anything else; `where` names the source in it.

    With `unique`, a key that one object has twice is an error too: parsers differ in which of the two values they keep.
    For `nan_as_null` see `read_mapping`.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            parse_constant=_null if nan_as_null else _no_number,
            parse_float=_finite,
            object_pairs_hook=_unique if unique else None,
        )
    except RecursionError:
        raise UserError(f"{where}: not readable as JSON: nested too deep") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: not JSON: it is not UTF-8") from None
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {_in_short(str(error))}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, but this is {_kind(value)}")
    if _deeper_than(value, _DEEPEST):
        raise UserError(f"{where}: not readable as JSON: nested too deep")
    return value


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names[type(value)]


def _in_short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no JSON number")


def _null(name: str) -> None:
    return None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{_in_short(text)} is too large for a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has the key {_in_short(twice)!r} twice")
    return unique


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
