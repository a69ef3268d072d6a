"""Settings that are changed on the command line: `--set key.key=value`, whose value is YAML."""

from collections.abc import Callable
from typing import Any

from lmmpress.errors import UserError
from lmmpress.settings.faults import nearest
from lmmpress.settings.plain_yaml import Place, parse_value

Names = Callable[[list[Any]], list[str]]
"""What the entries of a list are called."""


def parse_override(override: str) -> tuple[Place, Any]:
    """The place and the value of `key.key=value`; UserError where it is none."""
    path, separator, value = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as key.key=value")
    return tuple(path.strip().split(".")), parse_value(value, f"--set {path.strip()}")


def resolved(raw: Any, keys: Place, names: Names) -> Place:
    """A place whose entries of lists are numbers; an entry is addressed by its number, from 0, or by its name.

    UserError where a list has no such entry.
    """
    found: list[str] = []
    for depth, key in enumerate(keys):
        if isinstance(raw, list):
            known = names(raw)
            if key not in known and not (key.isdecimal() and int(key) < len(raw)):
                place = ".".join(keys[:depth])
                raise UserError(f"--set {'.'.join(keys)}: {place} has no entry {key!r}; {nearest(key, known)}")
            key = str(known.index(key)) if key in known else str(int(key))
        found.append(key)
        raw = raw[int(key)] if isinstance(raw, list) else raw.get(key) if isinstance(raw, dict) else None
    return tuple(found)


def with_setting(raw: Any, keys: Place, value: Any) -> Any:
    """A copy of settings in which the place has another value; UserError where it leads through what is no section."""
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
