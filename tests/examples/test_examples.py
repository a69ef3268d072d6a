"""The page of the examples: it lists every file, and its commands are ones that the scripts take."""

import argparse
import ast
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from tools.site import links

PAGE = ROOT / "examples" / "README.md"
COMMANDS = re.findall(r"^python (examples/\S+\.py .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
OFFERED = ("lmmpress", "lmmpress.data")
"""What scripts import of lmmpress: the API, and how a picture is opened as the model sees it (docs/data.md)."""


def test_every_file_is_listed() -> None:
    files = {f"examples/{file.name}" for file in PAGE.parent.iterdir() if file.is_file()} - {"examples/README.md"}
    assert len(files) >= 7
    assert {path for path, _ in links("examples/README.md") if path.startswith("examples/")} == files
    assert {shlex.split(command)[0] for command in COMMANDS} == {f"examples/{file.name}" for file in SCRIPTS}


@pytest.mark.parametrize("command", COMMANDS)
def test_scripts_take_the_commands_of_the_page(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is run up to its parsed arguments."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser) -> argparse.Namespace:
        raise ParsedError(parse(self))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(ParsedError):
        runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_scripts_say_how_they_are_called_and_use_public_names(script: Path) -> None:
    tree = ast.parse(script.read_text("utf-8"))
    assert f"python examples/{script.name} " in (ast.get_docstring(tree) or "")
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module for module in modules if module.partition(".")[0] == "lmmpress"} <= set(OFFERED)
