"""Applies settings from the command line: `--set key.key=value`, where the value is YAML."""

from collections.abc import Callable
from typing import Any

from lmmpress.errors import UserError
from lmmpress.settings.faults import nearest
from lmmpress.settings.plain_yaml import Place, parse_value

Names = Callable[[list[Any]], list[str]]
"""A function that gives the names of a list's entries."""


def parse_override(override: str) -> tuple[Place, Any]:
    """The place and the value in `key.key=value`. Raises UserError if the text has another form."""
    path, separator, value = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as key.key=value")
    return tuple(path.strip().split(".")), parse_value(value, f"--set {path.strip()}")


def resolved(raw: Any, keys: Place, names: Names) -> Place:
    """A place in which each entry of a list is given by its index. In `keys` it is given by its index, from 0, or its
    name.

    Raises UserError if a list has no such entry.
    """
    place_keys: list[str] = []
    for depth, key in enumerate(keys):
        if isinstance(raw, list):
            known = names(raw)
            if key not in known and not (key.isdecimal() and int(key) < len(raw)):
                place = ".".join(keys[:depth])
                raise UserError(f"--set {'.'.join(keys)}: {place} has no entry {key!r}; {nearest(key, known)}")
            key = str(known.index(key)) if key in known else str(int(key))
        place_keys.append(key)
        raw = raw[int(key)] if isinstance(raw, list) else raw.get(key) if isinstance(raw, dict) else None
    return tuple(place_keys)


def with_setting(raw: Any, keys: Place, value: Any) -> Any:
    """A copy of settings with a new value at a place. Raises UserError if the place leads through a value that is not a
    section."""
    nodes = [raw]
    for depth, key in enumerate(keys):
        if not isinstance(nodes[-1], dict | list):
            raise UserError(f"--set {'.'.join(keys)}: {'.'.join(keys[:depth])} is no section of the plan")
        nodes.append(nodes[-1][int(key)] if isinstance(nodes[-1], list) else nodes[-1].get(key, {}))
    for node, key in zip(reversed(nodes[:-1]), reversed(keys), strict=True):
        if isinstance(node, dict):
            value = node | {key: value}
            continue
        value = [*node[: int(key)], value, *node[int(key) + 1 :]]
    return value
