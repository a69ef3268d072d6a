"""models:/Name/3 and models:/Name@alias stand wherever the address of a checkpoint is taken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from support.cli import refused, run
from support.first_task import asked_by
from support.plans import PLAN

import lmmpress
from lmmpress.files.digest import digest_checkpoint
from lmmpress.plan import parse_plan
from lmmpress.store import open_store
from lmmpress.tasks.preparation import prepare
from lmmpress.tracking.client import open_client

NAMES = ("models:/ads/1", "models:/ads@champion")


@pytest.fixture
def teacher(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint("llama")


@pytest.fixture(autouse=True)
def registry(
    teacher: Path, tmp_path: Path, lineage_in: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> MlflowClient:
    """A registry that the environment names, with the teacher in it."""
    uri = lineage_in(tmp_path / "registry")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = open_client(uri)
    client.create_registered_model("ads")
    client.create_model_version("ads", str(teacher))
    client.set_registered_model_alias("ads", "champion", "1")
    return client


@pytest.fixture
def short_plan(raw_plan: dict[str, Any]) -> dict[str, Any]:
    return raw_plan | {"stages": {"block": {"step": 1, "max": 1}}}


@pytest.mark.parametrize("name", NAMES)
def test_every_function_takes_them(
    name: str, teacher: Path, data: Path, short_plan: dict[str, Any], tmp_path: Path
) -> None:
    digest = digest_checkpoint(teacher)
    assert lmmpress.locate(name) == str(teacher)
    assert lmmpress.open_checkpoint(name) == teacher
    assert lmmpress.inspect(name).checkpoint == digest
    pruned = lmmpress.prune(name, tmp_path / "pruned", axis="block", remove=1)
    assert lmmpress.inspect(pruned.checkpoint).teacher == digest
    assert lmmpress.evaluate(name, data, speed=False).parameters == pruned.parameters_before
    assert len(lmmpress.predict(name, data, rows=1)) == 1
    assert lmmpress.compare(name, pruned.checkpoint, data, rows=1, speed=False).a.checkpoint == digest
    assert len(lmmpress.plan_sizes(short_plan | {"model": name})) == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("trusting")
def test_a_run_takes_them_and_registers_another_name(
    name: str, teacher: Path, short_plan: dict[str, Any], tmp_path: Path
) -> None:
    result = lmmpress.compress(short_plan | {"model": name}, tmp_path / "out")
    assert result.original.checkpoint == digest_checkpoint(teacher)
    client = open_client(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    assert client.get_model_version_by_alias("ads-compressed", "compressed")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_them(
    name: str, data: Path, short_plan: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps(short_plan | {"model": name}), "utf-8")
    digest = digest_checkpoint(teacher)
    assert json.loads(run("inspect", name, "--json"))["checkpoint"] == digest
    assert len(json.loads(run("plan", plan, "--json"))) == 2
    assert json.loads(run("prune", name, "--axis", "block", "--remove", 1, "-o", tmp_path / "pruned", "--json"))["cuts"]
    assert json.loads(run("evaluate", name, "--data", data, "--no-speed", "--json"))["rows"] == 16
    assert json.loads(run("store", "cp", name, tmp_path / "store", "--json"))["addresses"] == [
        f"{tmp_path / 'store'}/checkpoints/{digest}"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_carries_the_name_and_its_first_task_looks_it_up(
    name: str, short_plan: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    """So that a recurring run takes the version that the alias names then."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(PLAN | {"model": name}), "utf-8")
    run("compile", plan, "-o", tmp_path / "pipeline.yaml")
    compiled = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text("utf-8")))
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert (parameters["model"]["defaultValue"], parameters["name"]["defaultValue"]) == (name, "ads-compressed")
    asked = parse_plan(short_plan | {"model": name, "store": str(tmp_path / "store")})
    prepared = prepare(**asked_by(asked, "ads-compressed"))
    assert prepared.outcome.address == open_store(str(tmp_path / "store")).address(digest_checkpoint(teacher))


def test_a_name_is_no_store() -> None:
    for command in (("store", "ls", NAMES[0]), ("store", "gc", NAMES[0])):
        assert "there is no store" in refused(*command)
    assert "is a model of the registry" in refused("store", "cp", NAMES[0], NAMES[1])
    assert not Path("models:").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models:/ads/7", "not found"),
        ("models:/ads@nobody", "nobody"),
        ("models:/ads", "write a registered model as models:/Name/3 or models:/Name@alias"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line_everywhere(
    name: str, message: str, data: Path, short_plan: dict[str, Any], tmp_path: Path
) -> None:
    plan = short_plan | {"model": name}
    for attempt in (
        lambda: lmmpress.inspect(name),
        lambda: lmmpress.evaluate(name, data),
        lambda: lmmpress.compare(name, name, data),
        lambda: lmmpress.plan_sizes(plan),
        lambda: lmmpress.compress(plan, tmp_path / "out"),
    ):
        with pytest.raises(lmmpress.UserError, match=message):
            attempt()
    assert not (tmp_path / "out").exists()


def test_without_a_registry_one_line_says_where_to_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(lmmpress.UserError, match="say in MLFLOW_TRACKING_URI where the registry is"):
        lmmpress.inspect("models:/ads/1")
