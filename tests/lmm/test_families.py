"""Every family, tower and axis: a cut keeps the promises of the table in docs/families.md, which `pytest --write-docs`
writes anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cuts import cut_of
from support.paths import ROOT
from support.tiny import MODELS, config_of, generate, input_embedding, make_model, output_embedding, save_model

from lmmpress.axes import axes
from lmmpress.axes.cut import Cut
from lmmpress.files.own_types import has_own_type
from lmmpress.lmm.anatomy import Anatomy, count_by_tower
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.probe_inputs import Tensors, probe_inputs, probe_logits
from lmmpress.lmm.read_anatomy import anatomy_after, anatomy_of, config_after
from lmmpress.lmm.tensor_cut import masked, shapes_after


def towers(name: str) -> tuple[str, ...]:
    if name.startswith("blip2"):
        return ("vision", "qformer", "language")
    return ("vision", "language") if name.startswith("llava") else ("language",)


DOCS = ROOT / "docs" / "families.md"
BEGIN, END = "<!-- table: written by tests/lmm/test_families.py -->\n", "<!-- end of table -->\n"
AXES = [axis.name for axis in axes()]
CASES = [(name, tower, axis) for name in MODELS for tower in towers(name) for axis in AXES]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny checkpoint of each family, made when it is first asked for."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("tiny") / name
            save_model(make_model(config_of(name)), made[name])
        return made[name]

    return make


@pytest.mark.parametrize(("name", "tower", "axis"), CASES)
def test_a_cut_keeps_the_promises_of_its_family(
    tiny: Callable[[str], Path], tmp_path: Path, name: str, tower: str, axis: str
) -> None:
    source, target = tiny(name), tmp_path / "cut"
    anatomy = read_checkpoint(source)
    cut = cut_of(anatomy, tower, axis)
    apply_cuts(source, read_checkpoint(source), [cut], target)

    # shapes as planned, and as the new config says; as many parameters as the plan predicts
    predicted = anatomy_after(anatomy, cut)
    after = read_checkpoint(target)
    assert after.shapes == predicted.shapes == shapes_after(anatomy, cut.keep)
    assert count_by_tower(after) == count_by_tower(predicted)
    body = anatomy.towers[tower].axes[axis]
    assert after.towers[tower].axes[axis].width == body.width - cut.removed

    # it loads, and equals the masked model where that is promised
    uncut, model = load_model(source), load_model(target)
    inputs = probe_inputs(uncut)
    reference = reference_of(uncut, anatomy, cut, inputs)
    if body.exactness != "approximate":
        assert torch.allclose(probe_logits(model, inputs), reference, atol=1e-5, rtol=1e-4)

    # ties stay tied
    assert ties(model) == ties(uncut)

    # it generates, with a cache and without alike
    image_token = getattr(model.config, "image_token_id", None)  # a made-up answer must not ask for another image
    settings = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": [image_token] if image_token else None}
    made = [generate(model, **inputs, **settings, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*made)
    assert promise(anatomy, after.config, tower, axis) == promised(name, tower, axis)


def promise(anatomy: Anatomy, config: dict, tower: str, axis: str) -> str:
    """How exact a cut is, and how the cut checkpoint loads."""
    return f"{anatomy.towers[tower].axes[axis].exactness}, {'auto_map' if has_own_type(config) else 'native'}"


def promised(name: str, tower: str, axis: str) -> str:
    """The same, from the model's config alone."""
    anatomy = anatomy_of(config_of(name))
    return promise(anatomy, config_after(anatomy, [cut_of(anatomy, tower, axis)]), tower, axis)


def test_the_table_in_the_docs_matches_the_cases(request: pytest.FixtureRequest) -> None:
    lines = ["| model | tower | " + " | ".join(AXES) + " |", "| --- | --- |" + " --- |" * len(AXES)]
    for name in MODELS:
        for tower in towers(name):
            cells = " | ".join(promised(name, tower, axis) for axis in AXES)
            lines.append(f"| {name} | {tower} | {cells} |")
    table = "\n".join(lines) + "\n"
    before, _, rest = DOCS.read_text("utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    if request.config.getoption("--write-docs"):
        DOCS.write_text(before + BEGIN + table + END + after, "utf-8")
    else:
        assert old == table


def reference_of(uncut: torch.nn.Module, anatomy: Anatomy, cut: Cut, inputs: Tensors) -> torch.Tensor:
    """Logits of the uncut model with the removed weights at zero, or with the removed blocks taken out of it."""
    if not anatomy.towers[cut.tower].axes[cut.axis].maskable:
        for stack in anatomy.towers[cut.tower].stacks:
            parent, _, attribute = stack.prefix.rpartition(".")
            module, left = uncut.get_submodule(parent), len(cut.keep[stack.group])
            setattr(module, attribute, getattr(module, attribute)[:left])
            config: Any = module.config
            config.num_hidden_layers = left
    else:
        uncut.load_state_dict(masked(anatomy, cut.keep, uncut.state_dict()))
    return probe_logits(uncut, inputs)


def ties(model: torch.nn.Module) -> bool:
    return output_embedding(model) is input_embedding(model)
