"""The recipe of the images: linted, locked, confined, and carried out without a container engine."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

from tools.images import recipe

DOCKER = ROOT / "docker"
NO_MACHINE = cast(recipe.Machine, None)  # for a builder that only reads the recipe
LOCKS = ("requirements", "torch-cuda", "kfp", "mlflow", "trigger")
BY_VARIANT = re.compile(r"torch|triton|nvidia-.*|cuda-.*")


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of every package in a lock file."""
    found: dict[str, tuple[str, list[str]]] = {}
    text = (DOCKER / f"{name}.lock").read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if not line.startswith("#"):
            pin, *hashes = line.split()
            package, _, version = pin.partition("==")
            found[package] = version, hashes
    return found


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: it comes with the extra `dev`")
    done = subprocess.run(
        [hadolint, str(DOCKER / "Dockerfile")], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("target", ["lmmpress", "mlflow", "trigger"])
@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_an_image_ends_without_root_and_without_tools(target: str, variant: str) -> None:
    builder = recipe.Builder(NO_MACHINE, {"VARIANT": variant})
    chain = builder.chain(target)
    assert [stage.base for stage in builder.stages.values() if stage.base not in builder.stages] == [
        "${BASE}",
        "torch-${VARIANT}",
        "${BASE}",
    ], "every base image is the argument BASE"
    said = [pair for stage in chain for pair in stage.instructions]
    assert [rest for instruction, rest in said if instruction == "USER"] == ["65532:65532"]
    (run,) = (rest for instruction, rest in said if instruction == "RUN")
    assert "pip uninstall --yes --no-cache-dir setuptools wheel pip" in run
    assert not re.search(r"apt|curl|wget|\bADD\b", " ".join(rest for _, rest in said))
    assert any(instruction == "HEALTHCHECK" for instruction, _ in said)
    (label,) = (rest for instruction, rest in said if instruction == "LABEL")
    for name in ("title", "description", "licenses", "version"):
        assert f"org.opencontainers.image.{name}=" in label
    environment = " ".join(rest for instruction, rest in said if instruction == "ENV")
    for setting in (
        "PATH=/opt/lmmpress/bin:",
        "HOME=/tmp ",
        "LMMPRESS_CACHE=/tmp/",
        "HF_HOME=/tmp/",
        "HF_HUB_OFFLINE=1",
    ):
        assert setting in environment
    # tools stay behind: what a final stage has, it copies
    assert {stage.name for stage in chain} == {"runtime", target}


def test_versions_in_the_dockerfile_are_the_tested_ones() -> None:
    builder = recipe.Builder(NO_MACHINE, {})
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert builder.arguments["VERSION"] == project["version"]
    assert recipe.read_argument(builder, "TORCH") == constraints()["torch"] == locked("torch-cuda")["torch"][0]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", builder.arguments["BASE"])


def test_every_install_is_locked() -> None:
    builder = recipe.Builder(NO_MACHINE, {})
    installs = [
        command
        for stage in builder.stages.values()
        for instruction, rest in stage.instructions
        if instruction == "RUN"
        for command in rest.split("&&")
        if " install --no-deps" in command
    ]
    assert len(installs) == 7
    free = [command for command in installs if "--require-hashes" not in command]
    assert [re.sub(r".* ", "", command.strip()) for command in free] == ['"torch==${TORCH}"', "/wheels/*.whl"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_what_is_tested(name: str) -> None:
    pinned = constraints()
    packages = locked(name)
    assert packages
    for package, (version, hashes) in packages.items():
        assert version == pinned.get(package, version), package
        assert hashes, package
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), package
        assert bool(BY_VARIANT.fullmatch(package)) == (name == "torch-cuda"), package
    text = (DOCKER / f"{name}.lock").read_text("utf-8")
    assert "://" not in text
    assert "index-url" not in text


def test_the_lock_covers_every_requirement() -> None:
    packages = locked("requirements") | locked("torch-cuda")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    used = [extras[name] for name in ("memory", "metrics", "mlflow", "parquet", "s3")]
    for text in [*project["dependencies"], *chain.from_iterable(used)]:
        requirement = Requirement(text)
        version, _ = packages[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), text
    packages |= locked("trigger")
    for text in [*extras["argo"], *extras["kubeflow"], *extras["trigger"]]:
        requirement = Requirement(text)
        version, _ = packages[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), text
    (kfp,) = (text for text in extras["kubeflow"] if Requirement(text).name == "kfp")
    assert Requirement(kfp).specifier.contains(locked("kfp")["kfp"][0])
    (build,) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    assert Requirement(build).specifier.contains(packages["setuptools"][0]), "the builder makes our wheel with it"


def test_the_triggers_image_has_no_torch_and_no_second_version_of_anything() -> None:
    builder = recipe.Builder(NO_MACHINE, {"VARIANT": "cuda"})
    copied = [
        rest.split()[0].removeprefix("--from=")
        for instruction, rest in builder.stages["trigger"].instructions
        if instruction == "COPY"
    ]
    assert copied == ["trigger-environment", "own"]
    assert builder.stages["trigger-environment"].base == "dependencies", "which has no torch yet"
    assert not locked("trigger").keys() & (locked("requirements") | locked("torch-cuda")).keys()
    assert locked("trigger")["kfp"][0] == locked("kfp")["kfp"][0], "what compiles is what runs in the pods"


def test_what_is_copied_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    for stage in recipe.Builder(NO_MACHINE, {}).stages.values():
        for instruction, rest in stage.instructions:
            if instruction == "COPY" and not rest.startswith("--from="):
                *sources, target = rest.split()
                assert target.startswith("/src/")
                for source in sources:
                    assert (ROOT / source).exists(), source
                    assert any(fnmatch.fnmatch(source, rule) for rule in allowed), source


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"].items()


def test_services_are_confined() -> None:
    named = dict(services())
    assert named.keys() == {"s3", "buckets", "postgres", "mlflow", "lmmpress"}
    assert "psycopg2-binary" in locked("mlflow")
    assert named["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")
    for name, service in named.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert "/tmp" in service["tmpfs"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for other, when in service.get("depends_on", {}).items():
            asked = named[other]
            if when["condition"] == "service_healthy":
                assert asked.get("healthcheck", {}).get("test") or "build" in asked, other
            else:
                assert when["condition"] == "service_completed_successfully"
                assert asked["restart"] == "no", other
        for volume in service.get("volumes", []):
            assert volume.endswith(":ro") or volume.partition(":")[0] in ("s3", "postgres", "cache", "out"), volume


def test_compose_holds_no_secret() -> None:
    text = (DOCKER / "compose.yaml").read_text("utf-8")
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    for _, service in services():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|ROOT_USER", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), name
    example = (DOCKER / ".env.example").read_text("utf-8").splitlines()
    for name in required:
        assert f"{name}=" in example, "named there, with no value"
    known = {line.lstrip("#").partition("=")[0] for line in example if "=" in line}
    assert set(re.findall(r"\$\{(\w+)", text)) <= known


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("unshare") is None, reason="needs Linux' mount namespaces")
def test_the_image_built_by_the_recipe_runs_compiled_tasks(tmp_path: Path) -> None:
    # where no other is named, a torch from wherever pip finds it here stands for the one of PyTorch's own index
    environment = {"TORCH_INDEX": "https://pypi.org/simple"} | os.environ
    command = [sys.executable, "-m", "tools.images.prove", "--work", str(tmp_path / "work")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", env=environment, check=False
    )
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "proved"
    tasks = [line.split(":")[0] for line in lines if line.startswith("task ")]
    assert tasks == ["task prepare", "task steps", "task due", "task due", "task importance", "task ffn-prune"]
