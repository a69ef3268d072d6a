"""After a cut, the layers that read what was cut are fitted to what they computed before it."""

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
from lmmpress.pruning import refit as module
from lmmpress.pruning.refit import refit

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
    assert len([name for name in fitted if name.endswith("weight")]) == len(anatomy.axis(tower, axis).groups)
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


def test_weights_are_those_of_least_squares() -> None:
    """The solution from moments is that of the rows, up to the ridge."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    rows = torch.randn(500, 12, generator=generator, dtype=torch.float64) @ mixed + 1
    weight, kept = torch.randn(5, 12, generator=generator, dtype=torch.float64), torch.tensor([0, 2, 3, 7, 8, 11])
    second, mean = rows.T @ rows / len(rows), rows.mean(0)
    target = rows @ weight.T
    for offset in (False, True):
        inputs = torch.cat([rows[:, kept], torch.ones(len(rows), 1, dtype=rows.dtype)[:, : int(offset)]], 1)
        best = torch.linalg.lstsq(inputs, target).solution
        least = float((inputs @ best - target).square().sum())
        fitted, shift = module._fitted(weight, kept, second, mean if offset else None)
        found = rows[:, kept] @ fitted.T + (shift if shift is not None else 0)
        error = float((found - target).square().sum())
        plain = float((rows[:, kept] @ weight[:, kept].T - target).square().sum())
        assert least <= error <= least + 0.01 * (plain - least)


def test_more_passes_over_the_rows_change_nothing(
    make_checkpoint: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments that do not fit together are collected in turn."""
    source = make_checkpoint("llama")
    anatomy = read_checkpoint(source)
    cut = cut_of(anatomy, "language", "io")
    apply_cuts(source, anatomy, [cut], tmp_path / "cut")
    batches, before = batches_of(source, data), load_model(source)
    fitted = []
    for limit in (module.MOST_MOMENTS, 1):
        monkeypatch.setattr(module, "MOST_MOMENTS", limit)
        model = load_model(tmp_path / "cut")
        names = refit(model, before, anatomy, [cut], batches, lambda one, batch: answer_logits(one, batch, None))
        fitted.append({name: model.get_parameter(name) for name in names})
    assert fitted[0].keys() == fitted[1].keys()
    assert len(fitted[0]) == 4 * 5, "query, key, value, gate and up of four blocks; the tied head stays"
    assert all(torch.equal(fitted[0][name], fitted[1][name]) for name in fitted[0])


def test_removed_blocks_leave_nothing_to_refit(make_checkpoint: Make, data: Path, tmp_path: Path) -> None:
    source = make_checkpoint("llama")
    anatomy = read_checkpoint(source)
    cut = cut_of(anatomy, "language", "block", units=1)
    apply_cuts(source, anatomy, [cut], tmp_path / "cut")
    before, model = load_model(source), load_model(tmp_path / "cut")
    assert refit(model, before, anatomy, [cut], [], lambda one, batch: None) == []


def test_several_cuts_are_refitted_together(make_checkpoint: Make, data: Path, tmp_path: Path) -> None:
    """After cuts along several axes, blocks among them, every layer that lost inputs is fitted under its new name, and
    the whole is closer to the model before it."""
    source = make_checkpoint("arcee")
    anatomy = read_checkpoint(source)
    cuts, current = [], anatomy
    for axis in ("block", "ffn", "attention"):
        cuts.append(cut_of(current, "language", axis, units=1 if axis == "block" else None))
        apply_cuts(source, anatomy, cuts, tmp_path / axis)
        current = read_checkpoint(tmp_path / axis)
    batches, before, model = batches_of(source, data), load_model(source), load_model(tmp_path / "attention")
    with torch.no_grad():
        plain = {name: value.clone() for name, value in model.named_parameters()}
    names = refit(model, before, anatomy, cuts, batches, lambda one, batch: answer_logits(one, batch, None))
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, plain[name])}
    assert set(names) == changed
    assert len(names) == 4 * 3, "weight and bias of the output of attention and FFN, in each block that is left"
