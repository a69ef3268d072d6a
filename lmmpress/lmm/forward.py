"""Forward passes with or without cached visual features: logits, visual features and hidden states of answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from lmmpress.lmm.anatomy import Anatomy, Projector
from lmmpress.lmm.examples import Batch, Examples, at_answers, make_batch
from lmmpress.progress import track


def answer_logits(
    model: torch.nn.Module,
    batch: Batch,
    examples: Examples,
    projector: Projector | None,
    features: torch.Tensor | None,
) -> torch.Tensor:
    """Logits [positions, vocabulary] at the batch's answer positions.

    `features` [images, tokens, width] are the projector's inputs by image (see `visual_features`); with them the vision
    tower is not run.
    """
    inner = getattr(model, "module", model)  # unwrap the model of a distributed run
    inputs = dict(batch.inputs)
    extra: dict[str, Any] = {}
    device = inputs["input_ids"].device
    images = examples.images_of(batch.examples)
    if features is not None and projector is not None and images:
        projected = inner.get_submodule(projector.module)(features[images].to(device, next(model.parameters()).dtype))
        embeddings = list(projected) if projector.listed else projected
        outputs = SimpleNamespace(pooler_output=embeddings, qformer_outputs=None, vision_outputs=None)
        extra = {"pixel_values": None, "mm_encoder_outputs": {"image": outputs}}
    elif images and examples.pixels is not None:
        inputs["pixel_values"] = examples.pixels[images].to(device)
    with at_answers(inner, batch):
        logits: torch.Tensor = model(**inputs, **extra, use_cache=False).logits
    return logits


@torch.no_grad()
def visual_features(
    model: torch.nn.Module, examples: Examples, anatomy: Anatomy, batch_size: int
) -> torch.Tensor | None:
    """The inputs of the language side's projector for every image, [images, tokens, width]; None without images.

    They depend only on the image towers, not on projector and language tower.
    """
    if examples.pixels is None or anatomy.projector is None:
        return None
    device = next(model.parameters()).device
    captured: list[torch.Tensor] = []
    with _input_of(model.get_submodule(anatomy.projector.module), captured):
        starts = range(0, len(examples.pixels), batch_size)
        for at in track(starts, f"see {examples.split.name}", len(starts)):
            model.get_image_features(examples.pixels[at : at + batch_size].to(device))  # type: ignore[operator]
    return torch.cat(captured)


@torch.no_grad()
def answer_states(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: torch.Tensor | None,
    order: list[list[int]],
) -> torch.Tensor:
    """The head's inputs at every answer position: hidden states [positions, width] in the examples' order."""
    device = next(model.parameters()).device
    head = model.get_output_embeddings()  # type: ignore[operator]
    states: torch.Tensor | None = None
    for chosen in track(order, "teacher", len(order)):
        batch = make_batch(examples, chosen).to(device)
        captured: list[torch.Tensor] = []
        with _input_of(head, captured):
            answer_logits(model, batch, examples, projector, features)
        batch_states = captured[0][batch.where.cpu()]
        if states is None:
            states = torch.empty((examples.positions, batch_states.shape[-1]), dtype=batch_states.dtype)
        states[batch.number.cpu()] = batch_states
    assert states is not None
    return states


@contextmanager
def _input_of(module: torch.nn.Module, captured: list[torch.Tensor]) -> Iterator[None]:
    """In this context the first input of each call of `module` is appended to `captured`."""
    handle = module.register_forward_pre_hook(lambda _, args: captured.append(args[0].detach().cpu()))
    try:
        yield
    finally:
        handle.remove()
