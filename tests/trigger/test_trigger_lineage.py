"""From the model in service back to its data, in a real MLflow after a real run: every link is there and leads on."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from support.cli import run
from support.mlflow_server import new_database, serving
from support.paths import ROOT
from support.plans import SHORT, tiny_plan
from support.promotion_work import comparison_json

from lmmpress.data.rows import read_split
from lmmpress.errors import UserError
from lmmpress.tracking.client import open_client
from lmmpress.tracking.registry import TAG
from lmmpress.trigger.settings import read_settings
from lmmpress.trigger.trigger import open_trigger

MODEL, COMPRESSED = "AntGMM", "AntGMM-compressed"


@dataclass
class Told:
    """A promotion that was made, and the files of its trigger."""

    settings: Path
    client: MlflowClient
    plan: dict[str, Any]
    claim: dict[str, Any]

    def lineage(self, code: int = 0) -> Any:
        return json.loads(run("trigger", "lineage", COMPRESSED, "--settings", self.settings, "--json", code=code))


@pytest.fixture(scope="module")
def told(make_checkpoint: Callable[..., Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A version that a person has fired for, whose run has two stages, and that was promoted with a comparison."""
    folder = tmp_path_factory.mktemp("lineage")
    with serving(new_database(folder / "mlflow.db"), folder) as address:
        client = open_client(address)
        plan = tiny_plan(make_checkpoint("llama"), data) | {"stages": SHORT}
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
        watched = {"plans": {"usual": {"plan": "plan.yaml", "engine": "local"}}, "policy": {"start": "by-hand"}}
        settings = folder / "trigger.yaml"
        raw = {"store": "store", "tracking": address, "models": {MODEL: watched}}
        settings.write_text(yaml.safe_dump(raw), "utf-8")
        client.create_registered_model(MODEL)
        client.create_model_version(MODEL, "s3://models/antgmm/1", tags={TAG: plan["model"]})
        client.set_registered_model_alias(MODEL, "release", "1")
        fired = ("trigger", "fire", MODEL, "--settings", settings, "--why", "before the sale", "--wait", "--json")
        claim = json.loads(run(*fired))
        assert claim["state"] == "succeeded", claim
        tags = client.get_model_version(COMPRESSED, "1").tags
        comparison = comparison_json(tags["lmmpress.original"], tags["lmmpress.checkpoint"])
        (folder / "comparison.json").write_text(comparison, "utf-8")
        promoted = ("trigger", "promote", COMPRESSED, "1", "--comparison", folder / "comparison.json")
        run(*promoted, "--settings", settings, "--why", "half the size")
        yield Told(settings, client, plan, claim)


def test_each_link_leads_on_to_the_next(told: Told) -> None:
    found = told.lineage()
    assert found["gaps"] == []
    assert (found["version"], found["serving"]["alias"], found["serving"]["why"]) == ("1", "serving", "half the size")
    way, claim = found["way"], found["claim"]
    steps = way["steps"]
    assert [step["name"] for step in steps] == ["ffn/0", "block/0"]
    assert found["checkpoint"] == steps[0]["checkpoint"]
    assert [step["parent"] for step in steps] == [steps[1]["checkpoint"], found["original"]]
    assert claim["key"] == told.claim["key"] == way["tags"]["lmmpress.claim"]
    assert (claim["why"], claim["cause"], claim["question"]["version"]) == ("before the sale", "shell", "1")
    assert claim["question"]["digest"] == found["original"], "the trigger asked for the checkpoint that was compressed"
    assert way["tags"]["lmmpress.model"] == f"models:/{MODEL}/1"
    assert told.client.get_model_version(COMPRESSED, "1").tags["lmmpress.model"] == f"models:/{MODEL}/1"
    assert [line[20:].partition(" by ")[0] for line in found["acts"]] == ["fire"]
    assert "because: before the sale; claim" in found["acts"][0]
    of_the_run, handed_in = found["comparisons"]
    assert ", by lmmpress-antgmm-1-" in of_the_run, "a run that the trigger has ordered is compared at its end"
    assert handed_in.startswith("counts: lost 0.0100 on 1000 rows of data dddd")


def test_the_data_can_be_held_against_the_digests(told: Told) -> None:
    """What MLflow names is what the folder of the data has, split by split."""
    data = {used["split"]: used["digest"] for used in told.lineage()["way"]["data"]}
    assert len(data) >= 2
    for split, digest in data.items():
        assert read_split(Path(told.plan["data"]), split).digest == digest


def test_the_page_for_reviewers_shows_what_is_printed(told: Told, request: pytest.FixtureRequest) -> None:
    """The example of docs/review-lineage.md is what this test has printed once (`--write-docs`): it has the lines, in
    their order, that a run of this lmmpress has."""
    page = ROOT / "docs/review-lineage.md"
    block = re.compile(r"(?<=^```\n)AntGMM-compressed version 1\n.*?(?=^```)", re.MULTILINE | re.DOTALL)
    printed = run("trigger", "lineage", COMPRESSED, "--settings", told.settings)
    if request.config.getoption("--write-docs"):
        shortened = printed.replace(str(told.settings.parent), "/srv")
        page.write_text(block.sub(lambda _: shortened, page.read_text("utf-8")), "utf-8")
    (example,) = block.findall(page.read_text("utf-8"))
    shown, real = ([line[2:15].strip() for line in text.splitlines()] for text in (example, printed))
    assert list(dict.fromkeys(shown)) == list(dict.fromkeys(real))


def test_what_does_not_lead_on_is_said(told: Told) -> None:
    client, version = told.client, told.client.get_model_version(COMPRESSED, "1")
    client.delete_model_version_tag(COMPRESSED, "1", "lmmpress.original")
    (one, two) = told.lineage(code=1)["gaps"]
    assert one.startswith("the version does not say which checkpoint it is, or of which original")
    assert two.endswith("do not lead back to the original")
    client.set_model_version_tag(COMPRESSED, "1", "lmmpress.original", version.tags["lmmpress.original"])
    for run_id in (None, "0" * 32):  # registered by hand, and of a run that was removed for good
        by_hand = client.create_model_version(COMPRESSED, "s3://models/x", run_id=run_id)
        lines = run("trigger", "lineage", COMPRESSED, "--settings", told.settings, "--version", by_hand.version, code=1)
        assert "gap          the version names no run that MLflow has" in lines
        assert "gap          no claim asked for it" in lines
    objects = open_trigger(read_settings(told.settings)).objects
    for entry in list(objects.entries("claims/")):
        objects.delete(entry.name)
    (gap,) = told.lineage(code=1)["gaps"]
    assert gap.startswith("no claim asked for it")
    with pytest.raises(UserError, match="is the compressed form of no watched model"):
        run("trigger", "lineage", "Ghost-compressed", "--settings", told.settings)
