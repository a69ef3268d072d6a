"""One forward pass, with or without cached visual features, and what can be learned from it."""

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
    inner = getattr(model, "module", model)  # the model itself where several processes wrap it
    inputs = dict(batch.inputs)
    extra: dict[str, Any] = {}
    device = inputs["input_ids"].device
    if examples.see is not None:
        images = torch.tensor([examples.rows[index].image for index in batch.examples])
    if features is not None and projector is not None:
        seen = inner.get_submodule(projector.module)(features[images].to(device, next(model.parameters()).dtype))
        given = list(seen) if projector.listed else seen
        made = SimpleNamespace(pooler_output=given, qformer_outputs=None, vision_outputs=None)
        extra = {"pixel_values": None, "mm_encoder_outputs": {"image": made}}
    elif examples.pixels is not None:
        inputs["pixel_values"] = examples.pixels[images].to(device)
    with at_answers(inner, batch):
        logits: torch.Tensor = model(**inputs, **extra, use_cache=False).logits
    return logits


@torch.no_grad()
def visual_features(
    model: torch.nn.Module, examples: Examples, anatomy: Anatomy, batch_size: int
) -> torch.Tensor | None:
    """What the language side's projector is given for every image, [images, tokens, width]; None without images.

    They stay the same as long as the image towers do, whatever becomes of projector and language tower.
    """
    if examples.pixels is None or anatomy.projector is None:
        return None
    device = next(model.parameters()).device
    found: list[torch.Tensor] = []
    with _input_of(model.get_submodule(anatomy.projector.module), found):
        starts = range(0, len(examples.pixels), batch_size)
        for at in track(starts, f"see {examples.split.name}", len(starts)):
            model.get_image_features(examples.pixels[at : at + batch_size].to(device))  # type: ignore[operator]
    return torch.cat(found)


@torch.no_grad()
def answer_states(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: torch.Tensor | None,
    order: list[list[int]],
) -> torch.Tensor:
    """What the model's head reads at every answer position, hidden states [positions, width] in the examples' order."""
    device = next(model.parameters()).device
    head = model.get_output_embeddings()  # type: ignore[operator]
    states: torch.Tensor | None = None
    for chosen in track(order, "teacher", len(order)):
        batch = make_batch(examples, chosen).to(device)
        found: list[torch.Tensor] = []
        with _input_of(head, found):
            answer_logits(model, batch, examples, projector, features)
        seen = found[0][batch.where.cpu()]
        if states is None:
            states = torch.empty((examples.positions, seen.shape[-1]), dtype=seen.dtype)
        states[batch.number.cpu()] = seen
    assert states is not None
    return states


@contextmanager
def _input_of(module: torch.nn.Module, found: list[torch.Tensor]) -> Iterator[None]:
    handle = module.register_forward_pre_hook(lambda _, args: found.append(args[0].detach().cpu()))
    try:
        yield
    finally:
        handle.remove()
