"""Checks the floors of the house: which room may import which.

    python -m tools.floors

The contracts are in pyproject.toml, at `tool.importlinter`, and import-linter checks them. It reads a copy of the tree
that differs from the tree in two ways:

- components/ and pipelines/ lie under lmmpress/, as they are installed;
- a module that a string names is imported at the end of the file. `[python, "-m", "lmmpress.engine.worker"]` depends on
  the worker as an import does. Strings that only document, such as docstrings, do not count.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALLED_AS = {"lmmpress": "lmmpress", "components": "lmmpress/components", "pipelines": "lmmpress/pipelines"}
"""Where each folder of packages lies once it is installed."""

_NAME = re.compile(r"lmmpress(?:\.\w+)+")
_STARTED = re.compile(r"(?:^|\s)(?:-m|import|from)\s+([A-Za-z_][\w.]*)")
_IMPORTERS = ("import_module", "__import__", "run_module")


def source_files(root: Path = ROOT) -> dict[str, Path]:
    """The files of every module, by the name that it is imported by."""
    found = {}
    for folder, installed in INSTALLED_AS.items():
        for file in sorted((root / folder).rglob("*.py")):
            parts = (Path(installed) / file.relative_to(root / folder)).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def named_in_strings(source: str, modules: set[str]) -> set[str]:
    """The modules that strings of a Python file name: of `modules`, and others that are imported or started by name."""
    tree = ast.parse(source)
    found: set[str] = set()
    for text in _strings(tree):
        if named := _module_of(text, modules):
            found.add(named)
        for name in _STARTED.findall(text):
            if named := _module_of(name, modules):
                found.add(named)
    for name in _imported_by_name(tree):
        found.add(_module_of(name, modules) or name)
    return found


def _module_of(text: str, modules: set[str]) -> str | None:
    """The module of ours that a whole string names, as `module`, `module:function` or `module.function`."""
    name = text.split(":")[0].rstrip(".")
    if not _NAME.fullmatch(name):
        return None
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name if "." in name else None  # lmmpress.word may also be a tag of MLflow


def _strings(tree: ast.AST) -> Iterator[str]:
    """Every string of a file, the constant parts of f-strings too, but no string that is a statement by itself."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def _imported_by_name(tree: ast.AST) -> Iterator[str]:
    """The names in `import_module("name")`, and in lists as `[..., "-m", "name", ...]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if function in _IMPORTERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value
        if isinstance(node, ast.List | ast.Tuple):
            words = [word.value if isinstance(word, ast.Constant) else None for word in node.elts]
            for option, name in pairwise(words):
                if option == "-m" and isinstance(name, str):
                    yield name


def lay_out(target: Path, root: Path = ROOT) -> None:
    """Write the tree as import-linter is to read it into the folder `target`."""
    files = source_files(root)
    for name, file in files.items():
        source = file.read_text("utf-8")
        more = sorted(named_in_strings(source, set(files)) - {name})
        copy = target / name.replace(".", "/") / "__init__.py" if file.name == "__init__.py" else None
        copy = copy or (target / name.replace(".", "/")).with_suffix(".py")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("\n".join([source, *(f"import {module}" for module in more), ""]), "utf-8")


def check(root: Path = ROOT, contracts: Path = ROOT / "pyproject.toml") -> tuple[bool, str]:
    """Whether the tree keeps the contracts, and what import-linter says."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), root)
        done = subprocess.run(
            [sys.executable, "-c", _LINT, str(contracts)],
            cwd=folder,
            env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    return done.returncode == 0, done.stdout + done.stderr


# import-linter puts the current directory on the path, where it finds the copy before what is installed
_LINT = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filenames=sys.argv[1:], no_cache=True, no_logo=True))
"""

if __name__ == "__main__":
    kept, words = check()
    print(words)
    sys.exit(0 if kept else 1)
