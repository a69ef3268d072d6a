"""Text is UTF-8 everywhere: no call uses the default encoding of the interpreter."""

import ast
from collections.abc import Iterator

import pytest
from support.paths import ROOT

FOLDERS = ("lmmpress", "components", "pipelines", "bench", "docker", "helm", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def left_open(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that read or write text without an encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = getattr(getattr(call.func, "value", None), "id", "")
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        if "encoding" in named or None in named:
            continue
        modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if (
            (name == "read_text" and not call.args)
            or (name == "write_text" and len(call.args) == 1)
            or (owner == "subprocess" and getattr(named.get("text"), "value", False))
            or (isinstance(call.func, ast.Name) and name == "open" and not any("b" in mode for mode in modes[-1:]))
            or (isinstance(call.func, ast.Attribute) and name == "open" and modes and set(modes[0]) <= set("rwax+t"))
        ):
            yield call.lineno


def test_every_text_file_is_opened_with_its_encoding() -> None:
    found = {str(path.relative_to(ROOT)): list(left_open(ast.parse(path.read_text("utf-8")))) for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}, "say utf-8"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, 'utf-8')", False),
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("open(path, encoding='utf-8')", False),
        ("path.open('a')", True),
        ("path.open('r+b')", False),
        ("Image.open(path)", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, text=True, encoding='utf-8')", False),
        ("subprocess.run(command, **settings)", False),
    ],
)
def test_calls_without_an_encoding_are_found(call: str, told: bool) -> None:
    assert list(left_open(ast.parse(call))) == [1] * told
