"""Describes the faults of settings: one line each, with the place of the fault and the nearest known key."""

import difflib
import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from lmmpress.settings.plain_yaml import Place

MOST = 20
_LONGEST = 80
_UNKNOWN = "unknown key"
_VERBS = ("is ", "has ", "holds ", "looks ", "stands ", "takes ", "asks ", "contains ")


def faults_of(error: ValidationError, model: type[BaseModel]) -> dict[Place, str]:
    """The faults of settings by place. If a value matches none of several allowed types, one line lists all of them; if
    the fault lies inside of it, that alone is told."""
    messages: dict[Place, list[str]] = {}
    inputs: dict[Place, Any] = {}
    for one in error.errors(include_url=False, include_context=False):
        place, known = _walk(model, one["loc"])
        message = _message(one["type"], one["msg"], place, known, one["input"])
        at_place = messages.setdefault(place, [])
        if message not in at_place:
            at_place.append(message)
        if not one["type"].startswith(("extra", "missing", "enum", "value_error")):
            inputs[place] = one["input"]
    around = {place[:length] for place in messages for length in range(len(place))}
    return {
        place: ", or ".join([at_place[0], *(one.removeprefix("input should be ") for one in at_place[1:])])
        + (f", got {_shown(inputs[place])}" if place in inputs else "")
        for place, at_place in messages.items()
        if place not in around
    }


def lines_of(faults: dict[Place, str], where: str, lines: dict[Place, int] | None = None) -> list[str]:
    """One message for each fault, in the order of the file: file and line, the place, and what is wrong."""
    messages = []
    for place, fault in faults.items():
        line = _line(place, lines or {})
        messages.append((line, f"{where}, line {line}: " if line else f"{where}: ", _sentence(".".join(place), fault)))
    messages.sort(key=lambda one: one[0])
    more = [f"{where}: {len(messages) - MOST} more faults"] if len(messages) > MOST else []
    return [at + sentence for _, at, sentence in messages[:MOST]] + more


def without_followers(first: dict[Place, str], others: dict[Place, str]) -> dict[Place, str]:
    """All faults, except those of `others` that only follow from a fault of `first`: at the same place, in the section
    around it, or inside it."""
    follows = {place[:length] for place in first for length in range(1, len(place) + 1)}
    own = {
        place: fault
        for place, fault in others.items()
        if place not in follows and not any(place[:length] in first for length in range(len(place) + 1))
    }
    return first | own


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for an unknown name: the nearest known name, or all known names."""
    if not known:
        return "there is none"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _line(place: Place, lines: dict[Place, int]) -> int:
    """The line of a place. A missing key has the line of its section; 0 if there is none."""
    return lines.get(place, lines.get(place[:-1], 0) if len(place) > 1 else 0)


def _sentence(place: str, fault: str) -> str:
    if not place:
        return fault
    if fault.startswith(_UNKNOWN):
        return fault.replace(_UNKNOWN, f"{_UNKNOWN} {place}", 1)
    return f"{place} {fault}" if fault.startswith(_VERBS) else f"{place}: {fault}"


def _message(kind: str, text: str, place: Place, known: list[str], value: Any) -> str:
    name = place[-1] if place else ""
    if kind == "extra_forbidden" and known:
        return f"{_UNKNOWN}; {nearest(name, known)}"
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "dict_type"):
        return "input should be a section of settings"
    text = text.removeprefix("Value error, ").removesuffix(", got a number with a fractional part")
    return text[:1].lower() + text[1:]


def _shown(value: Any) -> str:
    if isinstance(value, dict | list | set | tuple):
        return f"a {'section' if isinstance(value, dict) else 'list'} of {len(value)}"
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | int | float | bool) else type(value).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[Place, list[str]]:
    """The keys of an error's location, without the parts that pydantic adds; and the known keys at its end."""
    annotation: Any = model
    place: list[str] = []
    known: list[str] = []
    for part in location:
        annotation = _bare(annotation)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if part == "[key]":
            continue
        if origin in (Union, types.UnionType):  # the part names the type that was tried
            tried: list[Any] = [form for form in arguments if _is(form, str(part))]
            annotation = tried[0] if tried else Any
            continue
        place.append(str(part))
        known = []
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            known = list(annotation.model_fields)
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else Any
        elif origin is dict:
            annotation = arguments[1]
        elif origin is list:
            annotation = arguments[0]
    return tuple(place), known


def _bare(annotation: Any) -> Any:
    """A type without its annotations and without `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        forms = tuple(form for form in get_args(annotation) if form is not type(None))
        return _bare(forms[0]) if len(forms) == 1 else Union[forms]  # noqa: UP007 (forms are known only now)
    return annotation


def _is(annotation: Any, part: str) -> bool:
    """Whether a part of an error's location names this form: by the form's own tag, or by its type."""
    if any(isinstance(one, Tag) and one.tag == part for one in getattr(annotation, "__metadata__", ())):
        return True
    bare = _bare(annotation)
    return isinstance(bare, type) and bare.__name__ == part
