"""The weight of hidden states before the head (`distillation.states`), after cuts of the stream too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain

from lmmpress.distillation.loss import states_apart
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.lesson import lesson_of
from lmmpress.engine.parts.prune import prune
from lmmpress.lmm.batches import Batches
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.compression_record import read_record
from lmmpress.plan import parse_plan
from lmmpress.store import open_store

WEIGHT = 0.3


@pytest.mark.parametrize(
    ("kind", "axis", "removed"),
    [
        ("llama", "ffn", 16),
        ("llama", "io", 8),
        ("opt-350m", "io", 8),
        ("t5", "io", 8),
    ],  # whose head is narrower: opt-350m
)
def test_the_distance_of_states_is_added_to_the_loss(
    raw_plan: dict[str, Any], make_checkpoint: Callable[..., Path], tmp_path: Path, kind: str, axis: str, removed: int
) -> None:
    plan = parse_plan(raw_plan | {"model": str(make_checkpoint(kind)), "store": str(tmp_path / "store")})
    store = open_store(certain(plan.store))
    materials = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
    scores = importance(materials, materials.original).scored.scores
    checkpoint = prune(materials, materials.original, "language", axis, removed, scores).checkpoint
    model = load_model(store.checkpoint(checkpoint))

    def batch() -> Any:
        examples = lesson_of(materials, checkpoint, "whole", plan.distillation, None).examples
        features = materials.features("distill")
        return next(iter(Batches(examples, [[0, 1, 2]], features, torch.device("cpu"))))

    one = batch()
    plain, asked = (
        lesson_of(materials, checkpoint, "whole", plan.distillation.model_copy(update={"states": weight}), None).loss(
            model, one
        )
        for weight in (0.0, WEIGHT)
    )
    own, teacher = materials.student_states(model, one).inputs, materials.teacher_states_of(one).inputs
    history = certain(read_record(store.checkpoint(checkpoint, weights=False)))["history"]
    kept = history[-1]["cut"]["keep"].get("language.io", range(teacher.shape[1]))
    goal = teacher if own.shape == teacher.shape else teacher[:, list(kept)]
    assert own.shape == goal.shape
    assert (asked - plain).item() == pytest.approx(WEIGHT * states_apart(own, goal).item(), rel=1e-3)
    assert asked > plain
