"""The floors hold, and what breaks them is found however it is written."""

import shutil
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from support.paths import ROOT

from tools.floors import INSTALLED_AS, check, named_in_strings, source_files

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]

BREACHES = {
    # an import inside of a function, from the bottom to the top
    "printing/visible.py": (
        "def late():\n    from lmmpress.engine import step\n",
        "printing.visible -> lmmpress.engine",
    ),
    # modules that are named in strings: a process, an address with a function, an f-string
    "data/leaks.py": (
        'COMMAND = ["python", "-m", "lmmpress.engine.parts.worker"]\n',
        "data.leaks -> lmmpress.engine.parts.worker",
    ),
    "store/rights.py": ('ENTRY = "lmmpress.tasks.step_parts:gate"\n', "store.rights -> lmmpress.tasks.step_parts"),
    "lmm/bounds.py": ('CODE = f"import lmmpress.pruning.sizes; {1}"\n', "lmm.bounds -> lmmpress.pruning.sizes"),
    # through the package itself, which offers the whole library
    "settings/faults.py": ("def late():\n    from lmmpress import compress\n", "settings.faults -> lmmpress ("),
    # rooms of one floor
    "reporting/scales.py": ("import lmmpress.tracking.values\n", "reporting.scales -> lmmpress.tracking.values"),
    # another's package, at once, late, and by its name
    "engine/resume.py": ("import mlflow.entities\n", "engine.resume -> mlflow"),
    "evaluation/picture_use.py": ("def late():\n    from kfp import dsl\n", "evaluation.picture_use -> kfp"),
    "files/digest.py": ('MODULE = importlib.import_module("kubernetes.client")\n', "files.digest -> kubernetes"),
    # two modules of one room that need each other
    "store/file_locks.py": (
        'STARTED = ["-m", "lmmpress.store.workspace"]\n',
        "No cycles are allowed in lmmpress.store",
    ),
    # a room that no floor has
    "attic/__init__.py": ("", "attic"),
}


@pytest.fixture(scope="module")
def breached(tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, str]:
    """What is said of a tree with all the breaches in it."""
    root = tmp_path_factory.mktemp("tree")
    for folder in INSTALLED_AS:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "assets", "*.json"))
    for name, (source, _) in BREACHES.items():
        file = root / "lmmpress" / name
        file.parent.mkdir(exist_ok=True)
        with file.open("a", encoding="utf-8") as end:
            end.write(f"\n{source}")
    return check(root)


def test_the_tree_keeps_its_floors() -> None:
    kept, words = check()
    assert kept, words


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_found(name: str, breached: tuple[bool, str]) -> None:
    kept, words = breached
    assert not kept
    assert BREACHES[name][1] in words, words


def test_what_the_library_may_not_import_is_said_of_all_its_floors() -> None:
    floors, library, _ = CONTRACTS
    rooms = list(_rooms(floors))
    assert library["source_modules"] == [f"lmmpress.{room}" for room in rooms[rooms.index("engine") :]]


def test_no_contract_has_exceptions() -> None:
    allowed = {"id", "name", "type", "containers", "exhaustive", "layers", "ancestors"}
    allowed |= {"source_modules", "forbidden_modules"}
    for contract in CONTRACTS:
        assert set(contract) <= allowed, contract["id"]
        assert "(" not in " ".join(contract.get("layers", [])), "in brackets a room may be missing"


def test_every_folder_of_modules_is_a_package() -> None:
    """Without __init__.py it is read by import-linter as if it were not there."""
    modules = source_files()
    assert {name.rpartition(".")[0] for name in modules if "." in name} <= set(modules)


def test_prose_and_tags_are_no_imports() -> None:
    source = '"""`python -m lmmpress.cli`"""\nTAG = "lmmpress.checkpoint"\nWORDS = "as lmmpress.cli does"\n'
    assert named_in_strings(source, {"lmmpress", "lmmpress.cli"}) == set()


def _rooms(floors: dict[str, Any]) -> Iterator[str]:
    for layer in floors["layers"]:
        yield from layer.split(" | ")
