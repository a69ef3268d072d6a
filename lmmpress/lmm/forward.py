"""Forward passes with or without cached visual features: logits, visual features and hidden states of answers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from lmmpress.data.workers import by_workers
from lmmpress.lmm.anatomy import Anatomy, Projector
from lmmpress.lmm.batches import Batch, Batches, Features, at_answers
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.tensor_rows import Shape, TensorRows, temporary_rows
from lmmpress.progress import track

NewRows = Callable[[Shape, torch.dtype], TensorRows]
"""Makes a tensor in a file, whose rows are still to be written."""


def answer_logits(model: torch.nn.Module, batch: Batch, projector: Projector | None) -> torch.Tensor:
    """Logits [positions, vocabulary] at the batch's answer positions. With the features of its images the vision tower
    is not run."""
    inner = getattr(model, "module", model)  # unwrap the model of a distributed run
    inputs = dict(batch.inputs)
    extra: dict[str, Any] = {}
    if batch.features is not None and projector is not None:
        features = batch.features.to(inputs["input_ids"].device, next(model.parameters()).dtype)
        projected = inner.get_submodule(projector.module)(features)
        embeddings = list(projected) if projector.listed else projected
        outputs = SimpleNamespace(pooler_output=embeddings, qformer_outputs=None, vision_outputs=None)
        extra = {"pixel_values": None, "mm_encoder_outputs": {"image": outputs}}
    elif batch.pixels is not None:
        inputs["pixel_values"] = batch.pixels
    with at_answers(inner, batch):
        logits: torch.Tensor = model(**inputs, **extra, use_cache=False).logits
    return logits


def head_inputs(model: torch.nn.Module, batch: Batch, projector: Projector | None) -> torch.Tensor:
    """The inputs [positions, width] of the head at the batch's answer positions, as `answer_logits` gives its outputs.
    The head is not run."""
    inner = getattr(model, "module", model)
    head: torch.nn.Module = inner.get_output_embeddings()  # type: ignore[operator]
    head.forward = _handed_on  # of this module alone: its class keeps its own
    try:
        return answer_logits(model, batch, projector)
    finally:
        del head.forward


def _handed_on(states: torch.Tensor) -> torch.Tensor:
    return states


@torch.no_grad()
def visual_features(
    model: torch.nn.Module, examples: Examples, anatomy: Anatomy, batch_size: int, new: NewRows = temporary_rows
) -> TensorRows | None:
    """The inputs of the language side's projector for every image, [images, tokens, width], in a tensor of `new`; None
    without images.

    They depend only on the image towers, not on projector and language tower.
    """
    pixels = examples.pixels
    if pixels is None or anatomy.projector is None:
        return None
    device = next(model.parameters()).device
    found: TensorRows | None = None
    parts = [range(at, min(at + batch_size, len(pixels))) for at in range(0, len(pixels), batch_size)]
    read = by_workers(pixels.once, parts, ahead=1)
    for part, seen in zip(parts, track(read, f"see {examples.split.name}", len(parts)), strict=True):
        values = image_features(model, seen.to(device), anatomy.projector).cpu()
        found = found or new((len(pixels), *values.shape[1:]), values.dtype)
        found.write(part, values)
    return found


def image_features(model: torch.nn.Module, pixels: torch.Tensor, projector: Projector) -> torch.Tensor:
    """The inputs of the projector [images, tokens, width] for pixels [images, channels, height, width]."""
    captured: list[torch.Tensor] = []
    with _input_of(model.get_submodule(projector.module), captured):
        model.get_image_features(pixels)  # type: ignore[operator]
    return torch.cat(captured)


@torch.no_grad()
def answer_states(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: Features | None,
    order: Sequence[list[int]],
    new: NewRows = temporary_rows,
) -> TensorRows:
    """The head's inputs at every answer position: hidden states [positions, width] in the examples' order, in a tensor
    of `new`."""
    device = next(model.parameters()).device
    head = model.get_output_embeddings()  # type: ignore[operator]
    states: TensorRows | None = None
    for batch in track(Batches(examples, order, features, device), "teacher", len(order)):
        captured: list[torch.Tensor] = []
        with _input_of(head, captured):
            answer_logits(model, batch, projector)
        values = captured[0].cpu()[batch.where.cpu()]
        states = states or new((examples.positions, values.shape[-1]), values.dtype)
        states.write(batch.number.cpu().numpy(), values)
    assert states is not None
    return states


@contextmanager
def _input_of(module: torch.nn.Module, captured: list[torch.Tensor]) -> Iterator[None]:
    """In this context the first input of each call of `module` is appended to `captured`."""
    handle = module.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    try:
        yield
    finally:
        handle.remove()
