"""The part of expr-lang that our workflows use, with Argo's functions. https://expr-lang.org/docs/language-definition"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\?\.|\?\?|\|\||&&|==|!=|<=|>=|[-+*/<>!?:.,(){}\[\]]))"
)
_RANK = {
    "??": 1, "||": 2, "or": 2, "&&": 3, "and": 3, "==": 4, "!=": 4, "<": 4, ">": 4, "<=": 4, ">=": 4, "in": 4,
    "matches": 4, "+": 5, "-": 5, "*": 6, "/": 6,
}  # fmt: skip


class MissingError(Exception):
    """A variable that is not there."""


def evaluate(text: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expression; MissingError where it needs a variable that is not there."""
    parser = _Parser(_tokens(text), variables)
    value = parser.ternary()
    assert parser.kind() == "end", f"{text}: {parser.left()}"
    return value()


def jsonpath(text: str, path: str) -> Any:
    """Argo's function for a definite path."""
    value = json.loads(text)
    for key in path.removeprefix("$.").split("."):
        value = value[key]
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "jsonpath": jsonpath,
    "toJson": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "string": lambda value: str(int(value)) if isinstance(value, float) and value.is_integer() else str(value),
    "int": lambda value: int(float(value)),
    "asInt": lambda value: int(value),
    "asFloat": lambda value: float(value),
}
SPRIG: dict[str, Callable[..., Any]] = {
    "trunc": lambda count, text: text[:count],
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
}

_Value = Callable[[], Any]


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        assert match, f"{text}: {text[at:]}"
        assert match.lastgroup
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return [*found, ("end", "")]


class _Parser:
    """Gives functions, because the branch of a condition that is not taken is not evaluated."""

    def __init__(self, tokens: list[tuple[str, str]], variables: Mapping[str, Any]) -> None:
        self._tokens, self._at, self._variables = tokens, 0, variables

    def kind(self) -> str:
        return self._tokens[self._at][0]

    def left(self) -> list[str]:
        return [text for _, text in self._tokens[self._at :]]

    def _peek(self) -> str:
        kind, text = self._tokens[self._at]
        return text if kind in ("sign", "name") else ""

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _take(self, sign: str) -> None:
        assert self._peek() == sign, (sign, self.left())
        self._at += 1

    def ternary(self) -> _Value:
        condition = self._binary(0)
        if self._peek() != "?":
            return condition
        self._next()
        yes = self.ternary()
        self._take(":")
        no = self.ternary()
        return lambda: yes() if condition() else no()

    def _binary(self, least: int) -> _Value:
        left = self._unary()
        while (rank := _RANK.get(self._peek(), 0)) > least:
            sign = self._next()
            left = _joined(sign, left, self._binary(rank))
        return left

    def _unary(self) -> _Value:
        if self._peek() in ("!", "not"):
            self._next()
            value = self._unary()
            return lambda: not value()
        return self._members(self._primary())

    def _members(self, value: _Value) -> _Value:
        while self._peek() in (".", "?.", "(", "["):
            sign = self._next()
            if sign == "(":
                value = self._call(value)
            else:
                key = self._key(sign)
                value = _member(value, key, optional=sign == "?." or self._peek() == "?.")
        return value

    def _key(self, sign: str) -> _Value:
        if sign != "[":
            name = self._next()
            return lambda: name
        key = self.ternary()
        self._take("]")
        return key

    def _call(self, function: _Value) -> _Value:
        given = self._list(")")
        return lambda: function()(*(one() for one in given))

    def _list(self, end: str) -> list[_Value]:
        found = []
        while self._peek() != end:
            found.append(self.ternary())
            if self._peek() != end:
                self._take(",")
        self._take(end)
        return found

    def _primary(self) -> _Value:
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            plain = re.sub(r"\\(.)", r"\1", text[1:-1])
            return lambda: plain
        if kind == "number":
            number = float(text) if "." in text else int(text)
            return lambda: number
        if kind == "name":
            return self._name(text)
        if text == "(":
            value = self.ternary()
            self._take(")")
            return value
        if text == "[":
            items = self._list("]")
            return lambda: [one() for one in items]
        assert text == "{", (text, self.left())
        return self._map()

    def _map(self) -> _Value:
        entries: list[tuple[_Value, _Value]] = []
        while self._peek() != "}":
            key = self._primary()
            self._take(":")
            entries.append((key, self.ternary()))
            if self._peek() != "}":
                self._take(",")
        self._take("}")
        return lambda: {key(): value() for key, value in entries}

    def _name(self, name: str) -> _Value:
        constants = {"true": True, "false": False, "nil": None}
        if name in constants:
            return lambda: constants[name]
        if name == "sprig":
            return lambda: SPRIG
        if name in FUNCTIONS and self._peek() == "(":
            return lambda: FUNCTIONS[name]

        def value() -> Any:
            if name not in self._variables:
                raise MissingError(name)
            return self._variables[name]

        return value


def _member(value: _Value, key: _Value, optional: bool) -> _Value:
    def found() -> Any:
        whole = value()
        if whole is None and optional:
            return None
        if not isinstance(whole, Mapping) or (key() not in whole and not optional):
            raise MissingError(key())
        return whole.get(key())

    return found


def _joined(sign: str, left: _Value, right: _Value) -> _Value:
    match sign:
        case "??":
            return lambda: right() if left() is None else left()
        case "||" | "or":
            return lambda: left() or right()
        case "&&" | "and":
            return lambda: left() and right()
        case "in":
            return lambda: left() in right()
        case "matches":
            return lambda: bool(re.search(right(), left()))
        case "==":
            return lambda: left() == right()
        case "!=":
            return lambda: left() != right()
        case "<":
            return lambda: left() < right()
        case ">":
            return lambda: left() > right()
        case "+":
            return lambda: left() + right()
        case "*":
            return lambda: left() * right()
    raise AssertionError(sign)
