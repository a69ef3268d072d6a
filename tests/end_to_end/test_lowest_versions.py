"""The library works with the lowest versions that pyproject.toml allows."""

import json
import subprocess
import sys
import tomllib
import venv
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from support.paths import ROOT

pytestmark = pytest.mark.long

AS_INSTALLED = {"torch"}
"""torch stays what it is: another is gigabytes, and its lowest version has no wheels for newer Pythons."""

CHOSEN = (
    "ground/test_plan.py",
    "ground/test_plain_yaml.py",
    "ground/test_credentials.py",
    "ground/test_terminal.py",
    "evaluation/test_gate.py",
    "metrics/test_documented.py",
    "lmm/test_cut.py",
    "distillation/test_loss.py",
    "store/test_store.py::test_a_lock_file_that_is_a_link_is_refused_and_its_target_stays",
    "cli/test_cli.py::test_prune_inspect_and_evaluate",
    "cli/test_cli.py::test_run_writes_the_files_that_others_read",
)

# What a package of the environment asks for of others, and what it gets: a line of JSON for each that does not fit.
NOT_FITTING = """
import importlib.metadata as metadata, json, sys
from packaging.requirements import Requirement

for name in sys.argv[1:]:
    for text in metadata.requires(name) or []:
        asked = Requirement(text)
        if asked.marker and not asked.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(asked.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or not asked.specifier.contains(version, prereleases=True):
            print(json.dumps({"by": name, "asked": f"{asked.name}{asked.specifier}", "found": version}))
"""


def lowest() -> dict[str, str]:
    """Our own dependencies and those of the metrics, MLflow and S3, each with its lowest version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = {}
    used = [extras[name] for name in ("metrics", "mlflow", "parquet", "s3")]
    for asked in map(Requirement, [*project["dependencies"], *chain.from_iterable(used)]):
        (version,) = (one.version for one in asked.specifier if one.operator == ">=")
        found[asked.name] = version
    return {name: version for name, version in found.items() if name not in AS_INSTALLED}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which the lowest versions come before the installed ones."""
    folder = tmp_path_factory.mktemp("lowest") / "env"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # after its own packages; addsitedir reads what those folders add in turn, such as an editable lmmpress
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in others)
    (packages / "zz_installed.pth").write_text(lines, "utf-8")

    python = folder / "bin" / "python"

    def install(*wanted: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        command += ["--ignore-installed", "--only-binary", ":all:", *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
        assert done.returncode == 0, done.stderr

    wanted = lowest()
    install(*(f"{name}=={version}" for name, version in wanted.items()))
    for _ in range(3):  # what the lowest versions need of others, such as pydantic_core, in turn
        asked = {one["asked"] for one in not_fitting(python, *wanted)}
        if not asked:
            return python
        install(*asked)
    pytest.fail(f"these versions do not go together: {not_fitting(python, *wanted)}")


def not_fitting(python: Path, *names: str) -> list[dict[str, str]]:
    command = [str(python), "-c", NOT_FITTING, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_lowest_versions_are_installed(python: Path) -> None:
    script = (
        "import json, sys; from importlib.metadata import version; print(json.dumps([*map(version, sys.argv[1:])]))"
    )
    names = list(lowest())
    done = subprocess.run(
        [str(python), "-c", script, *names], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    for name, version in zip(names, json.loads(done.stdout), strict=True):
        assert Version(version) == Version(lowest()[name]), name


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["plan", "--preset", "paper", "--json"]])
def test_the_program_starts_with_the_lowest_versions(python: Path, command: list[str]) -> None:
    done = subprocess.run(
        [str(python), "-m", "lmmpress.cli", *command], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr


def test_the_main_tests_pass_with_the_lowest_versions(python: Path) -> None:
    """All in one process, since most of them take less time than importing torch, transformers and MLflow."""
    command = [str(python), "-m", "pytest", "-n", "0", "-p", "no:cacheprovider"]
    command += [str(ROOT / "tests" / test) for test in CHOSEN]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
