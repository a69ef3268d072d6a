"""What every contributor relies on: small modules, make's list of targets, hooks that need no network."""

import ast
import io
import re
import shutil
import subprocess
import tokenize
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT

from tools.floors import source_files

MOST_LINES = 350
AT_THE_TOP = {"api", "errors", "plan", "progress", "result", "stages"}
"""The modules that lie in lmmpress/ itself and in no room: the public API, and the ground."""


def lines_of_code(file: Path) -> int:
    """Lines with code on them: no blank lines, comments or docstrings."""
    source = file.read_text("utf-8")
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - prose)


def test_no_module_is_long() -> None:
    files = [*source_files().values(), *(ROOT / "tools").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    long = {str(file.relative_to(ROOT)): lines for file in files if (lines := lines_of_code(file)) > MOST_LINES}
    assert not long


def test_modules_lie_in_rooms() -> None:
    at_the_top = {file.stem for file in (ROOT / "lmmpress").glob("*.py")} - {"__init__"}
    assert at_the_top <= AT_THE_TOP


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lists_its_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    lines = dict(re.findall(r"^  make ([\w-]+) +(\S.*)$", listed, re.MULTILINE))
    assert set(lines) == set(phony.split())


def test_hooks_fetch_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert {repo["repo"] for repo in hooks["repos"]} == {"local"}
    for repo in hooks["repos"]:
        for hook in repo["hooks"]:
            assert hook["language"] == "system"
            assert re.match(r"\.venv/bin/(ruff|mypy|python) |\.venv/bin/mypy$|awk ", hook["entry"]), hook["id"]


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
