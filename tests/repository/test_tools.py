"""Tools of the maintainers: nothing of them is installed, and the commands that documents name exist."""

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

COMMAND = re.compile(r"python3? -m ((?:tools|bench|lmmpress)[\w.]*\w)")
DOCUMENTS = [
    file
    for pattern in ("*.md", ".github/**/*.md", "docs/**/*.md", "*/**/README.md", "tools/**/*.py", "Makefile", ".ci/run")
    for file in sorted(ROOT.glob(pattern))
    if not {".venv", "build", "out"} & set(file.relative_to(ROOT).parts)
]


def test_commands_that_documents_name_can_be_run() -> None:
    named = {(command, file) for file in DOCUMENTS for command in COMMAND.findall(file.read_text("utf-8"))}
    assert len(named) >= 5
    for command, file in named:
        spec = importlib.util.find_spec(command)
        assert spec is not None, f"{file}: python -m {command}"
        assert spec.origin is not None
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            origin = origin.with_name("__main__.py")
        assert "__main__" in origin.read_text("utf-8") or origin.name == "__main__.py", f"{file}: python -m {command}"


def test_the_wheel_holds_the_library_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="it builds the wheel, and torch brings it")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("lmmpress", "components", "pipelines", "tools", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=tree,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"lmmpress", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    samples = [f"sample/{name}/model.safetensors" for name in ("antgmm_mini", "antgmm_mini_hard")]
    for needed in (*samples, "presets/sample-hard.yaml", "components/gate/component.py", "pipelines/compression.py"):
        assert f"lmmpress/{needed}" in names
