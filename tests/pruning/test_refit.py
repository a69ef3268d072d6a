"""After a cut, the layers of the tower are fitted, in their order, to what they computed before it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.cuts import cut_of

from lmmpress.axes.cut import Cut
from lmmpress.axes.slices import AxisAnatomy
from lmmpress.data import read_split
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batch, grouped, make_batch
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint, save_trained
from lmmpress.lmm.examples import encode
from lmmpress.lmm.forward import answer_logits
from lmmpress.lmm.processor import load_processor
from lmmpress.pruning.refit import fitted_weights, refit

Make = Callable[..., Path]


def batches_of(checkpoint: Path, data: Path) -> list[Batch]:
    examples = encode(read_split(data, "distill"), load_processor(checkpoint), read_checkpoint(checkpoint).config)
    return [make_batch(examples, chosen) for chosen in grouped(examples, 8)]


def with_copies(model: torch.nn.Module, body: AxisAnatomy, cut: Cut) -> None:
    """Make every dimension that a cut removes a copy of one that it keeps: what computes it is equal."""
    parameters = dict(model.named_parameters())
    for group in body.groups:
        kept = cut.keep[group.name]
        gone = [number for number in range(group.size) if number not in kept]
        for piece in (piece for piece in group.slices if piece.dim == 0):
            values = parameters[piece.tensor].data.view(*piece.view, *parameters[piece.tensor].shape[1:])
            for place, number in enumerate(gone):
                values[:, number] = values[:, kept[place % len(kept)]]


def saved(model: torch.nn.Module, source: Path, anatomy: Anatomy, target: Path) -> Path:
    save_trained(model, source, anatomy, target, {"format": 1, "history": []})
    return target


@pytest.mark.parametrize(
    ("kind", "tower", "axis"),
    [
        ("llama", "language", "ffn"),
        ("opt", "language", "ffn"),
        ("flan-t5", "language", "ffn"),
        ("glm", "language", "ffn"),
        ("opt", "vision", "ffn"),
        ("opt", "qformer", "ffn"),
        ("llava-clip-llama", "language", "ffn"),
    ],
)
def test_what_copies_held_is_taken_over(
    make_checkpoint: Make, data: Path, tmp_path: Path, kind: str, tower: str, axis: str
) -> None:
    """A cut that removes copies changes the model, and refitted it computes what it did before."""
    source = make_checkpoint(kind)
    anatomy, model = read_checkpoint(source), load_model(source)
    cut = cut_of(anatomy, tower, axis)
    with_copies(model, anatomy.axis(tower, axis), cut)
    uncut = saved(model, source, anatomy, tmp_path / "uncut")
    apply_cuts(uncut, anatomy, [cut], tmp_path / "cut")
    batches = batches_of(source, data)

    def logits(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([answer_logits(model, batch, anatomy.projector) for batch in batches])

    before, model = load_model(uncut), load_model(tmp_path / "cut")
    wanted, plain = logits(before), logits(model)
    fitted = refit(model, before, anatomy, [cut], batches, lambda one, batch: answer_logits(one, batch, None))
    assert fitted
    assert (logits(model) - wanted).abs().max() < 0.02 * (plain - wanted).abs().max()


def test_a_bias_takes_over_what_is_constant(make_checkpoint: Make, data: Path, tmp_path: Path) -> None:
    """Removed units whose output never changes are replaced without loss."""
    source = make_checkpoint("opt")
    anatomy, model = read_checkpoint(source), load_model(source)
    cut = cut_of(anatomy, "language", "ffn")
    for group in anatomy.axis("language", "ffn").groups:
        gone = [number for number in range(group.size) if number not in cut.keep[group.name]]
        for piece in group.slices:
            if piece.dim == 0 and piece.tensor.endswith("weight"):
                model.get_parameter(piece.tensor).data[gone] = 0
    uncut = saved(model, source, anatomy, tmp_path / "uncut")
    apply_cuts(uncut, anatomy, [cut], tmp_path / "cut")
    batches, before, after = batches_of(source, data), load_model(uncut), load_model(tmp_path / "cut")
    refit(after, before, anatomy, [cut], batches, lambda one, batch: answer_logits(one, batch, None))
    with torch.no_grad():
        wanted, found = (answer_logits(one, batches[0], None) for one in (before, after))
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("offset", [False, True])
def test_weights_are_those_of_least_squares(offset: bool) -> None:
    """The solution from moments is that of the rows, up to the ridge."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    x = torch.randn(500, 6, generator=generator, dtype=torch.float64) @ mixed[:, :6] + 1
    y = x @ torch.randn(6, 5, generator=generator, dtype=torch.float64) + torch.randn(500, 5, generator=generator) + 2
    weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    inputs = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1) if offset else x
    least = float((inputs @ torch.linalg.lstsq(inputs, y).solution - y).square().sum())
    means = (x.mean(0), y.mean(0)) if offset else None
    fitted, shift = fitted_weights(weight, x.T @ x / len(x), y.T @ x / len(x), means)
    assert (shift is not None) == offset
    error = float((x @ fitted.T + (0 if shift is None else shift) - y).square().sum())
    plain = float((x @ weight.T - y).square().sum())
    assert least <= error <= least + 0.01 * (plain - least)


@pytest.mark.parametrize(
    ("kind", "tower", "axis"),
    [
        ("llama", "language", "attention"),
        ("llama", "language", "io"),
        ("glm", "language", "attention"),
        ("qwen2", "language", "attention"),
        ("flan-t5", "language", "io"),
        ("opt", "vision", "attention"),
        ("opt", "qformer", "attention"),
        ("opt", "vision", "io"),
    ],
)
def test_the_cut_model_comes_closer_to_the_model_before_it(
    make_checkpoint: Make, data: Path, tmp_path: Path, kind: str, tower: str, axis: str
) -> None:
    """Also where what was cut has no reader of its own, as planes of query and key, and on rows that nothing was
    fitted on."""
    source = make_checkpoint(kind)
    anatomy = read_checkpoint(source)
    cut = cut_of(anatomy, tower, axis)
    apply_cuts(source, anatomy, [cut], tmp_path / "cut")
    *batches, other = batches_of(source, data)
    before, model = load_model(source), load_model(tmp_path / "cut")

    def error() -> float:
        with torch.no_grad():
            found, wanted = (answer_logits(one, other, anatomy.projector) for one in (model, before))
        return float((found - wanted).square().mean())

    plain = error()
    names = refit(model, before, anatomy, [cut], batches, lambda one, batch: answer_logits(one, batch, None))
    assert names
    assert all(anatomy.tower(tower).owns(name) for name in names), "other towers stay as they are"
    assert error() < 0.9 * plain


def test_removed_blocks_leave_nothing_to_refit(make_checkpoint: Make, data: Path, tmp_path: Path) -> None:
    source = make_checkpoint("llama")
    anatomy = read_checkpoint(source)
    cut = cut_of(anatomy, "language", "block", units=1)
    apply_cuts(source, anatomy, [cut], tmp_path / "cut")
    before, model = load_model(source), load_model(tmp_path / "cut")
    assert refit(model, before, anatomy, [cut], [], lambda one, batch: None) == []


def test_several_cuts_are_refitted_together(make_checkpoint: Make, data: Path, tmp_path: Path) -> None:
    """After cuts along several axes, blocks among them, every layer from the first that was cut is fitted, under its
    new name."""
    source = make_checkpoint("arcee")
    anatomy = read_checkpoint(source)
    cuts, current = [], anatomy
    for axis in ("block", "ffn", "attention"):
        cuts.append(cut_of(current, "language", axis, units=1 if axis == "block" else None))
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        apply_cuts(source, anatomy, cuts, tmp_path / "cut")
        current = read_checkpoint(tmp_path / "cut")
    batches, before, model = batches_of(source, data), load_model(source), load_model(tmp_path / "cut")
    plain = {name: value.clone() for name, value in model.named_parameters()}
    names = refit(model, before, anatomy, cuts, batches, lambda one, batch: answer_logits(one, batch, None))
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, plain[name])}
    assert set(names) == changed
    assert len(names) == 3 * 6 * 2, "six layers and their biases in each block that is left"


def test_layers_before_the_first_cut_stay(make_checkpoint: Make, data: Path, tmp_path: Path) -> None:
    """What comes before the first FFN computes what it did."""
    source = make_checkpoint("llama")
    anatomy = read_checkpoint(source)
    cut = cut_of(anatomy, "language", "ffn")
    apply_cuts(source, anatomy, [cut], tmp_path / "cut")
    batches, before, model = batches_of(source, data), load_model(source), load_model(tmp_path / "cut")
    names = refit(model, before, anatomy, [cut], batches, lambda one, batch: answer_logits(one, batch, None))
    assert not [name for name in names if ".layers.0.self_attn." in name]
    assert [name for name in names if ".layers.1.self_attn." in name]
