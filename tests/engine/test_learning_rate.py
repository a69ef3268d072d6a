"""Steps whose learning rate is found, in one process and in several."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain

from lmmpress.engine.compression import compress
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.launch import train_in_processes
from lmmpress.engine.parts.training import Trained, train
from lmmpress.lmm.checkpoint import load_model, read_record
from lmmpress.plan import Plan, parse_plan
from lmmpress.progress import Said, listening
from lmmpress.result import Result
from lmmpress.store import open_store

pytestmark = pytest.mark.usefixtures("trusting")
STAGES = {"ffn": {"step": 16, "max": 16}}


def plan_with(raw: dict[str, Any], **distillation: Any) -> Plan:
    return parse_plan(raw | {"stages": STAGES, "distillation": raw["distillation"] | distillation})


def test_the_rate_that_was_found_is_told(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    said = []
    with listening(lambda event: said.append(event.words) if isinstance(event, Said) else None):
        result = compress(plan_with(raw_plan, learning_rate="auto"), tmp_path / "out")
    (step,) = result.steps
    rate = certain(step.learning_rate)
    assert Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8")).steps == [step]
    store = open_store(str(tmp_path / "out" / "store"))
    assert certain(read_record(store.checkpoint(certain(step.checkpoint))))["history"][-1]["learning_rate"] == rate
    assert any(f"distilled at {rate:.2g}: " in line for line in said)
    compress(plan_with(raw_plan, learning_rate="auto"), tmp_path / "out", resume=True)
    assert Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8")).steps == [step]


def test_a_rate_of_the_plan_leaves_records_as_they_were(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    compress(plan_with(raw_plan), tmp_path / "out")
    store = open_store(str(tmp_path / "out" / "store"))
    names = [entry.name.removeprefix("records/").removesuffix(".json") for entry in store.objects.entries("records/")]
    (record,) = [store.read_record(name) for name in names if name.startswith("distill-")]
    assert sorted(certain(record).keys() - {"energy"}) == ["checkpoint", "loss", "machine", "of", "seconds"]


def test_the_training_is_that_with_the_same_rate_in_the_plan(
    raw_plan: dict[str, Any], taught: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Trials change neither the model nor the order of its rows, and several processes find what one finds."""
    plan = plan_with(raw_plan | {"model": str(taught)}, learning_rate="auto")
    store = open_store(str(tmp_path / "store"))
    materials = Materials(plan, store, store.add_checkpoint(taught))
    student = store.add_checkpoint(make_checkpoint("llama"))

    def weights(trained: Trained) -> dict[str, torch.Tensor]:
        return load_model(store.checkpoint(certain(trained.checkpoint))).state_dict()

    found = train(materials, student, 5, plan.distillation)
    rate = certain(found.learning_rate)
    again = train(materials, student, 5, plan.distillation.model_copy(update={"learning_rate": rate}))
    assert again.loss == found.loss
    wanted = weights(again)
    for name, value in weights(found).items():
        assert torch.equal(value, wanted[name]), name
    two = plan.distillation.model_copy(update={"processes": 2})
    together = train_in_processes(materials, student, 5, two)
    assert together.learning_rate == pytest.approx(rate, rel=0.05)
    assert together.loss == pytest.approx(found.loss, rel=1e-3)
