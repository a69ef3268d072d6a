"""The training loop gives the same as one written plainly, on the same machine in the same run; see
docs/determinism.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain
from support.exact_distillation import SETTINGS, distil, exact_pair, exact_values
from support.plain_distillation import distil_plainly

from lmmpress.data import read_split
from lmmpress.engine.compression import compress
from lmmpress.lmm.checkpoint import load_model, read_checkpoint, read_record
from lmmpress.lmm.examples import Examples, encode
from lmmpress.lmm.processor import load_processor
from lmmpress.plan import parse_plan
from lmmpress.settings.distillation import Distillation
from lmmpress.store import open_store

RECORDED = [0.9784475449]
"""The loss of the pair below with SETTINGS."""


@pytest.fixture(name="exact_pair")
def _exact_pair(make_checkpoint: Callable[..., Path], data: Path) -> tuple[torch.nn.Module, torch.nn.Module, Examples]:
    return exact_pair(make_checkpoint("opt"), data)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2},
        {"weight_decay": 0.5, "max_grad_norm": 0.1},
        {"batch_size": 7, "micro_batch_size": 3},
    ],
)
def test_the_loop_is_the_plain_one(
    exact_pair: tuple[torch.nn.Module, torch.nn.Module, Examples],
    make_checkpoint: Callable[..., Path],
    changes: dict[str, Any],
) -> None:
    student, teacher, examples = exact_pair
    plain = exact_values(make_checkpoint("opt"), 1)
    settings = Distillation(**SETTINGS | changes)
    losses = distil(exact_pair, settings)
    assert losses == pytest.approx(distil_plainly(plain, teacher, examples, settings, 5), rel=1e-6)
    wanted = plain.state_dict()
    for name, value in student.state_dict().items():
        assert torch.allclose(value, wanted[name], rtol=0, atol=1e-10), name


def test_losses_are_those_recorded(exact_pair: tuple[torch.nn.Module, torch.nn.Module, Examples]) -> None:
    """Finds what the plain loop cannot: other prompts, pixels or logits, or a torch that shuffles differently. Only
    here does a recorded number hold on every processor: all is computed in float64 from equal bits, in few updates
    (docs/determinism.md shows how much processors differ). A change that is meant to change the number records it
    anew."""
    assert distil(exact_pair, Distillation(**SETTINGS)) == pytest.approx(RECORDED, rel=1e-6)


@pytest.mark.usefixtures("trusting")
def test_a_run_distils_as_the_plain_loop_does(raw_plan: dict[str, Any], taught: Path, tmp_path: Path) -> None:
    """Every step of a run: with its own seed, from the original, and the image side untouched.

    In float32, and with caches; so the two agree less well than above.
    """
    settings = raw_plan["distillation"] | {"rows": 16, "batch_size": 4}
    plan = parse_plan(raw_plan | {"model": str(taught), "distillation": settings})
    result = compress(plan, tmp_path / "out")
    store = open_store(str(tmp_path / "out" / "store"))
    teacher = load_model(store.checkpoint(result.original.checkpoint))
    rows = read_split(Path(plan.data), "distill", plan.distillation.rows)
    examples = encode(rows, load_processor(taught), read_checkpoint(taught).config)
    records = {entry.name.removeprefix("records/").removesuffix(".json") for entry in store.objects.entries("records/")}
    seeds = {
        certain(store.read_record(name))["checkpoint"]: int(name[-15:], 16)
        for name in records
        if name.startswith("distill-")
    }
    assert len(result.steps) == 5
    for step in result.steps:
        history = certain(read_record(store.checkpoint(certain(step.checkpoint))))["history"]
        student = load_model(store.checkpoint(history[-1]["distilled_from"]))
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(name.startswith(("language_model", "language_projection")))
        losses = distil_plainly(student, teacher, examples, plan.distillation, seeds[certain(step.checkpoint)])
        assert step.loss == pytest.approx(losses, rel=1e-3), step
