"""Steps that cut the image side and learn from visual features (`image_side: features`)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain, whole

from lmmpress.engine.compression import compress
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.launch import train_in_processes
from lmmpress.engine.parts.lesson import side_of
from lmmpress.engine.parts.prune import prune
from lmmpress.engine.parts.training import train
from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.forward import visual_features
from lmmpress.plan import parse_plan
from lmmpress.store import open_store

pytestmark = pytest.mark.usefixtures("trusting")
TOWERS = {"llama": ["vision", "qformer", "language"], "llava-clip-llama": ["vision", "language"]}


@pytest.fixture
def materials(raw_plan: dict[str, Any], tmp_path: Path) -> Callable[..., Materials]:
    def make(model: Path | None = None, **distillation: Any) -> Materials:
        learned = raw_plan["distillation"] | {"image_side": "features", "epochs": 4} | distillation
        changed = {"towers": ["vision", "language"], "distillation": learned}
        plan = parse_plan(raw_plan | changed | ({"model": str(model)} if model else {}))
        store = open_store(str(tmp_path / "store"))
        return Materials(plan, store, store.add_checkpoint(Path(plan.model)))

    return make


def cut(materials: Materials, checkpoint: str, tower: str, axis: str, removed: int) -> str:
    scores = None if axis == "block" else importance(materials, checkpoint).scored.scores
    return prune(materials, checkpoint, tower, axis, removed, scores).checkpoint


def learned(materials: Materials, checkpoint: str) -> str:
    return certain(distill(materials, checkpoint).checkpoint)


def weights(materials: Materials, checkpoint: str) -> dict[str, torch.Tensor]:
    return dict(load_model(materials.store.checkpoint(checkpoint)).named_parameters())


def changed(materials: Materials, before: str, after: str) -> set[str]:
    """The names of the parameters that differ."""
    one, other = weights(materials, before), weights(materials, after)
    return {name for name, value in one.items() if not value.equal(other[name])}


def distance(materials: Materials, checkpoint: str) -> float:
    """From the original's visual features, on rows that nothing is trained on."""
    examples = materials.examples("gate")
    one, other = (
        whole(visual_features(load_model(materials.store.checkpoint(name)), examples, materials.anatomy, 4))
        for name in (materials.original, checkpoint)
    )
    return float((one - other).square().sum())


def test_a_step_on_the_image_side_trains_it_alone_towards_the_originals_features(
    materials: Callable[..., Materials],
) -> None:
    mine = materials()
    student = cut(mine, mine.original, "vision", "ffn", 16)
    taught = learned(mine, student)
    assert changed(mine, student, taught)
    assert all(name.startswith(mine.anatomy.image_side) for name in changed(mine, student, taught))
    assert distance(mine, taught) < distance(mine, student)


def test_a_step_on_the_language_side_leaves_the_image_side_as_the_steps_before_left_it(
    materials: Callable[..., Materials],
) -> None:
    mine = materials()
    seeing = learned(mine, cut(mine, mine.original, "vision", "ffn", 16))
    student = cut(mine, seeing, "language", "ffn", 16)
    trained = changed(mine, student, learned(mine, student))
    assert trained
    assert not any(name.startswith(mine.anatomy.image_side) for name in trained)


def test_after_a_jump_that_cuts_both_sides_the_whole_model_learns(materials: Callable[..., Materials]) -> None:
    mine = materials()
    first = cut(mine, mine.original, "vision", "ffn", 16)
    settings = mine.plan.distillation
    assert side_of(mine, first, settings) == "image"
    assert side_of(mine, cut(mine, first, "language", "ffn", 16), settings) == "whole"
    assert side_of(mine, learned(mine, first), settings) == "language"
    assert side_of(mine, first, settings.model_copy(update={"image_side": "answers"})) == "whole"


def test_features_are_kept_by_what_computes_them(materials: Callable[..., Materials]) -> None:
    """A cut of the language side does not change them, a cut of the image side does; and they are those of the
    checkpoint."""
    mine = materials()
    first = mine.features("gate", mine.original)
    assert mine.features("gate", cut(mine, mine.original, "language", "ffn", 16)) is first
    student = cut(mine, mine.original, "vision", "ffn", 16)
    found = whole(mine.features("gate", student))
    model, examples = load_model(mine.store.checkpoint(student)), mine.examples("gate")
    assert found.equal(whole(visual_features(model, examples, mine.anatomy, 64)))
    assert not found.equal(whole(first))
    assert mine.features("gate") is None, "scores need gradients of the image side, so pixels go through it"


def test_caches_change_nothing_but_rounding(materials: Callable[..., Materials]) -> None:
    results = []
    for caches in (True, False):
        mine = materials(caches=caches)
        student = cut(mine, mine.original, "vision", "ffn", 16)
        taught = certain(train(mine, student, 5, mine.plan.distillation).checkpoint)
        nexts = cut(mine, taught, "language", "ffn", 16)
        results.append(weights(mine, certain(train(mine, nexts, 5, mine.plan.distillation).checkpoint)))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "tower"), [("llama", "qformer"), ("llava-clip-llama", "vision")])
def test_of_a_narrower_tower_the_features_that_it_still_has_are_compared(
    materials: Callable[..., Materials], make_checkpoint: Callable[..., Path], name: str, tower: str
) -> None:
    mine = materials(make_checkpoint(name))
    student = cut(mine, mine.original, tower, "io", 8)
    found = distill(mine, student)
    assert found.loss[-1] < found.loss[0]


def test_refitting_runs_the_image_side_alone(materials: Callable[..., Materials]) -> None:
    mine = materials(epochs=0, refit_rows=16)
    student = cut(mine, mine.original, "vision", "ffn", 16)
    repaired = learned(mine, student)
    assert all(name.startswith(mine.anatomy.image_side) for name in changed(mine, student, repaired))
    assert distance(mine, repaired) < distance(mine, student)


def test_two_processes_learn_what_one_learns(materials: Callable[..., Materials]) -> None:
    mine = materials()
    student = cut(mine, mine.original, "vision", "ffn", 16)
    settings = mine.plan.distillation
    alone = train(mine, student, 5, settings)
    together = train_in_processes(mine, student, 5, settings.model_copy(update={"processes": 2}))
    assert together.loss == pytest.approx(alone.loss, rel=1e-3)


def test_a_learning_rate_is_found_for_features_too(materials: Callable[..., Materials]) -> None:
    mine = materials(learning_rate="auto")
    found = distill(mine, cut(mine, mine.original, "vision", "ffn", 16))
    assert certain(found.learning_rate) > 0
    assert found.loss[-1] < found.loss[0]


def test_rows_without_images_are_one_line(
    materials: Callable[..., Materials], make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    mine = materials(make_checkpoint("llava-clip-llama"))
    student = cut(mine, mine.original, "vision", "ffn", 16)
    rows = map(json.loads, (data / "metadata.jsonl").read_text("utf-8").splitlines())
    texts = [{key: value for key, value in row.items() if key != "file_name"} for row in rows]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "metadata.jsonl").write_text("\n".join(map(json.dumps, texts)), "utf-8")
    blind = Materials(mine.plan.model_copy(update={"data": str(tmp_path / "texts")}), mine.store, mine.original)
    with pytest.raises(UserError, match=r"no row of split 'distill' has an image.*image_side: answers"):
        distill(blind, student)


@pytest.mark.parametrize("name", TOWERS)
def test_a_run_cuts_all_towers(
    raw_plan: dict[str, Any], make_checkpoint: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    changes = {"model": str(make_checkpoint(name)), "towers": TOWERS[name], "stages": {"ffn": {"step": 16, "max": 16}}}
    settings = raw_plan["distillation"] | {"image_side": "features", "stop_within": True}
    result = compress(parse_plan(raw_plan | changes | {"distillation": settings}), tmp_path / "out")
    assert [step.tower for step in result.steps] == TOWERS[name]
    assert all(step.decision == "accepted" for step in result.steps)


def test_plans_that_learn_from_answers_keep_their_keys(raw_plan: dict[str, Any]) -> None:
    plain, answers, features = (
        parse_plan(raw_plan, changes).key_settings()
        for changes in ((), ("distillation.image_side=answers",), ("distillation.image_side=features",))
    )
    assert plain == answers != features
