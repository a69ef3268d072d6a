"""docs/architecture.md agrees with the code: its floors, its list of modules, and where it says that things are."""

import ast
import re
import tomllib

from support.paths import ROOT

from tools.floors import source_files
from tools.module_map import PAGE, with_map

TEXT = PAGE.read_text("utf-8")


def drawn_floors() -> list[list[str]]:
    """The rooms of every floor in the drawing, the top floor first."""
    (drawing,) = re.findall(r"^## The floors\n.*?^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [re.split(r" {2,}", line)[0].split(" | ") for line in drawing.splitlines()]


def test_the_drawing_is_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    assert drawn_floors() == [layer.strip("()").split(" | ") for layer in floors]


def test_every_room_is_drawn_once_and_exists() -> None:
    drawn = [room for floor in drawn_floors() for room in floor]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {name.split(".")[1] for name in source_files() if "." in name}


def test_every_module_is_listed_with_what_it_says() -> None:
    assert with_map(TEXT) == TEXT, "python -m tools.module_map writes the list anew"


def test_what_is_said_to_be_in_a_file_is_in_it() -> None:
    """A path that is followed by a name: the module defines it, a class's method as class.method."""
    named = re.findall(r"`(lmmpress/[\w/]+\.py)`, ((?:`[\w.]+`(?: and )?)+)", TEXT)
    assert len(named) >= 8
    for path, names in named:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        for name in re.findall(r"`([\w.]+)`", names):
            scope: ast.AST = tree
            for part in name.split("."):
                found = [node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == part]
                assert found, f"{path} does not define {name}"
                scope = found[0]
