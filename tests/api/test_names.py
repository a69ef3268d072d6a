"""The names of `import lmmpress`: all there, documented, typed, and imported only when they are used."""

import ast
import inspect
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

import lmmpress


def test_every_name_is_there_and_says_what_it_is() -> None:
    assert lmmpress.__all__ == sorted(lmmpress.__all__, key=lambda name: (not name[0].isupper(), name))
    for name in lmmpress.__all__:
        value = getattr(lmmpress, name)
        assert inspect.getdoc(value), name
        assert value.__name__ == name
    assert set(lmmpress.__all__) <= set(dir(lmmpress))
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        _ = lmmpress.compres


def test_every_function_of_the_api_is_offered_and_typed() -> None:
    from lmmpress import api

    functions = {
        name for name, value in vars(api).items() if inspect.isfunction(value) and value.__module__ == api.__name__
    }
    offered = {name for name in functions if not name.startswith("_")}
    assert offered <= set(lmmpress.__all__)
    for name in offered:
        signature = inspect.signature(getattr(api, name))
        assert signature.return_annotation is not inspect.Signature.empty, name
        assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values()), name


def test_checkers_of_types_see_the_same_names() -> None:
    """Type checkers read the imports under TYPE_CHECKING."""
    tree = ast.parse((ROOT / "lmmpress" / "__init__.py").read_text("utf-8"))
    (guarded,) = (
        one for one in tree.body if isinstance(one, ast.If) and getattr(one.test, "id", "") == "TYPE_CHECKING"
    )
    imported = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(imported) == set(lmmpress.__all__)
    for name, module in imported.items():
        assert lmmpress._MODULES.get(name, "lmmpress.api") == module, name


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout.strip()


def test_import_lmmpress_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "mlflow", "minio", "kfp", "pydantic", "rich", "numpy")
    code = f"import sys, json, lmmpress; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert json.loads(in_a_fresh_process(code)) == []


@pytest.mark.parametrize("name", ["compress", "UserError", "on_terminal", "Result", "Plan"])
def test_the_light_names_need_no_torch(name: str) -> None:
    assert in_a_fresh_process(f"import sys; from lmmpress import {name}; print('torch' in sys.modules)") == "False"


def test_no_room_takes_the_place_of_a_function() -> None:
    """Importing a room sets its name in the package."""
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "lmmpress").iterdir()}
    assert not rooms & set(lmmpress.__all__)


@pytest.mark.long
def test_a_wheel_says_that_it_is_typed(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: the build leaves files beside what it builds
    for name in ("lmmpress", "components", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*command, str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = file.read(metadata).decode()
    assert "lmmpress/py.typed" in names
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    assert {f"{package.replace('.', '/')}/__init__.py" for package in packages} <= names
    assert {"lmmpress/reporting/page.html", "lmmpress/reporting/style.css", "lmmpress/presets/sample.yaml"} <= names
    for extra in ("kubeflow", "mlflow", "s3", "all", "cluster"):
        assert f"Provides-Extra: {extra}" in told
