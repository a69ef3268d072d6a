"""Reads the YAML of plans and cluster profiles as plain data: text, numbers, booleans, null, lists and mappings.

A file is untrusted. So no YAML tag creates a Python object, the values that aliases repeat are counted before they are
built, and depth and size are limited. All faults are reported at once, each with its line.
"""

import codecs
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lmmpress.errors import UserError

MOST_BYTES = 1 << 18
MOST_VALUES = 10_000
"""The largest number of values in a file, with those that aliases repeat."""

DEEPEST = 30
_LARGEST = 1 << 63  # every number of a setting is smaller

Place = tuple[str, ...]
"""The keys that lead to a value; the key of a list's entry is its index, from 0."""

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "value")}
_KINDS = {
    "timestamp": "a date",
    "set": "a set",
    "binary": "binary data",
    "omap": "an ordered mapping",
    "pairs": "pairs",
}
_MERGE = "tag:yaml.org,2002:merge"

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_WORDS = (  # messages of PyYAML as regular expressions, with our plainer texts
    (r"expected <block end>, but found .*", "this line is indented unlike those before it, or belongs to none"),
    (r"found unexpected end of stream", "the file ends before the closing quote"),
    (r"mapping values are not allowed here", "a second : on this line; put the text in quotes"),
    (r"sequence entries are not allowed here", "a list cannot begin here; put - on a line of its own, or in quotes"),
    (r"could not find expected ':'", "a key without its :"),
    (r"found character '\\t' that cannot start any token", "a tab where spaces have to be"),
    (r"found character (.*) that cannot start any token", r"a text cannot begin with \1; put it in quotes"),
    (r"second occurrence", "another anchor has this name"),
    (r"but found another document|.*expected a single document.*", "a second document begins with ---"),
    (r"found (unknown escape character|undefined alias|duplicate anchor)", r"\1"),
    (r"'?<stream end>'?", "the end"),
    (r"'?<document start>'?", "---"),
    (r"'?<block mapping start>'?", "a key that is indented deeper"),
    (r"'?<scalar>'?", "text"),
)
_CONTEXTS = {
    "while parsing a flow sequence": "the [ ... ]",
    "while parsing a flow mapping": "the { ... }",
    "while parsing a flow node": "the [ ... ] or { ... }",
    "while parsing a block mapping": "the section",
    "while parsing a block collection": "the list",
    "while scanning a quoted scalar": "the quoted text",
    "while scanning a double-quoted scalar": "the quoted text",
    "while scanning a simple key": "the key",
}


@dataclass
class Document:
    """The `value` of a file, the line of each place in it, and its faults by place."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    faults: dict[Place, str] = field(default_factory=dict)


def read_document(path: Path, what: str) -> Document:
    """The mapping in a file; `what` names the kind of file in errors.

    A value with a fault becomes None, and the fault is noted in the document. Raises UserError if the file cannot be
    read or holds no mapping.
    """
    document = parse_document(_text_of(path, what), str(path))
    if not isinstance(document.value, dict):
        kind = {type(None): "nothing", list: "a list"}.get(type(document.value), "one value")
        raise UserError(f"{path}: a {what} is a mapping of settings, this holds {kind}")
    return document


def parse_document(text: str, where: str) -> Document:
    """Parse a YAML text. Raises UserError if it is not YAML, has too many values or is nested too deep."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        document = Document()
        if node is not None:
            document.value = _Reading(loader, document, where).value_of(node, (), 0)
        return document
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}{_described(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{where}, line {line}: a control character (code {error.character})") from None
    except (ValueError, OverflowError):
        raise UserError(f"{where}: not YAML: an escape in quotes names no character") from None


def parse_value(text: str, where: str) -> Any:
    """Parse a single value from the command line."""
    document = parse_document(text, where)
    if document.faults:
        raise UserError(*(f"{where} {fault}" for fault in document.faults.values()))
    return document.value


def _text_of(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what} file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path}: a {what} has at most {MOST_BYTES >> 10} kB, this has more")
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            raise UserError(f"{path}: is {encoding}; save it as UTF-8")
    if b"\0" in data[:2]:
        raise UserError(f"{path}: looks like UTF-16 or binary data; save it as UTF-8")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


class _Loader(yaml.SafeLoader):
    """Composes nodes to a limited depth, so that Python's stack never overflows."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deep", problem_mark=self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reading:
    """Converts nodes to plain values. A node that aliases share is converted and counted at each of its places."""

    def __init__(self, loader: _Loader, document: Document, where: str) -> None:
        self._loader, self._document, self._where = loader, document, where
        self._open: set[int] = set()
        self._count = 0

    def value_of(self, node: yaml.Node, place: Place, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._document.lines.setdefault(place, line)
        self._count += 1
        if self._count > MOST_VALUES:
            raise UserError(f"{self._where}, line {line}: more than {MOST_VALUES} values, with what aliases repeat")
        if id(node) in self._open:
            return self._fault(place, "contains itself, by its anchor")
        if depth > DEEPEST:
            raise UserError(f"{self._where}, line {line}: nested too deep")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return self._mapping(node, place, depth)
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return [self.value_of(one, (*place, str(at)), depth + 1) for at, one in enumerate(node.value)]
            return self._not_plain(node, place)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, place: Place, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                self._document.lines.setdefault((*place, "<<"), line)
                merged = self._merged(value, (*place, "<<"), depth) | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._document.lines.setdefault((*place, "?"), line)
                self._fault((*place, "?"), "is a key that is no text")
                continue
            name = key.value
            here = (*place, name)
            self._document.lines[here] = line
            own[name] = self.value_of(value, here, depth + 1)
            if name in first:
                self._fault(here, f"stands twice, first in line {first[name]}")
            elif fault := _fault_of_text(name):
                self._fault(here, fault)
            first.setdefault(name, line)
        return merged | own

    def _merged(self, node: yaml.Node, place: Place, depth: int) -> dict[str, Any]:
        """The keys that `<<: *anchor` merges in; in a list of anchors the first one wins."""
        value = self.value_of(node, place, depth + 1)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            self._fault(place, "takes a value that is not a mapping")
            return {}
        merged: dict[str, Any] = {}
        for part in parts:
            merged = part | merged
        return merged

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        if node.tag not in _PLAIN:
            return self._not_plain(node, place)
        try:
            value = node.value if node.tag.endswith("value") else self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError, KeyError, IndexError):
            kind = "true or false" if node.tag.endswith("bool") else "number"
            return self._fault(place, f"is no {kind}: {_short(node.value)}")
        if isinstance(value, str) and (fault := _fault_of_text(value)):
            return self._fault(place, fault)
        if isinstance(value, int) and abs(value) >= _LARGEST:
            return self._fault(place, f"is too large a number: {_short(node.value)}")
        if isinstance(value, float) and not abs(value) < float("inf"):
            return self._fault(place, f"is no finite number: {_short(node.value)}")
        return value

    def _not_plain(self, node: yaml.Node, place: Place) -> None:
        kind = _KINDS.get(node.tag.removeprefix("tag:yaml.org,2002:"), f"tagged {_short(node.tag)}")
        remedy = "; put it in quotes if text is meant" if kind == "a date" else ""
        return self._fault(place, f"is {kind}, but settings are text, numbers, lists and mappings{remedy}")

    def _fault(self, place: Place, what: str) -> None:
        self._document.faults.setdefault(place, what)


def _fault_of_text(text: str) -> str:
    control = next((one for one in text if unicodedata.category(one) in ("Cc", "Cs") and one not in "\t\n"), None)
    return "" if control is None else f"has a control character (code {ord(control)}) in it"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _described(error: yaml.MarkedYAMLError) -> str:
    """Describe where a text stops being YAML, and why, in plain words."""
    problem = str(error.problem or error.context or "it cannot be read")
    for pattern, replacement in _WORDS:
        problem = re.sub(pattern, replacement, problem)
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    inside = _CONTEXTS.get(str(error.context))
    if inside and begun and mark and (begun.line, begun.column) != (mark.line, mark.column):
        problem += f"; {inside} begins in line {begun.line + 1}, column {begun.column + 1}"
    return f"{place}: not YAML: {problem}"
