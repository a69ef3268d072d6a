"""Forward passes with or without cached visual features: logits, visual features and hidden states of answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch

from lmmpress.lmm.anatomy import Anatomy, Projector
from lmmpress.lmm.at_once import AtOnce
from lmmpress.lmm.batches import Batch, Batches, Features, at_answers
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.pixels import Images
from lmmpress.lmm.portions import Portions
from lmmpress.lmm.ragged_rows import NewFile, NewRagged, RaggedRows
from lmmpress.lmm.tensor_rows import TensorRows
from lmmpress.progress import track

_TEMPORARY = NewFile()


def answer_logits(model: torch.nn.Module, batch: Batch, projector: Projector | None) -> torch.Tensor:
    """Logits [positions, vocabulary] at the batch's answer positions. With the features of its images the vision tower
    is not run."""
    with at_answers(model, batch):
        return logits_of(model, batch, projector)


def logits_of(model: torch.nn.Module, batch: Batch, projector: Projector | None) -> torch.Tensor:
    """What a model's head gives for all positions of a batch."""
    inputs = dict(batch.inputs)
    extra: dict[str, Any] = {}
    if projector is not None and (batch.features is not None or isinstance(batch.pixels, list)):
        embeddings = _embeddings(model, batch, projector)
        outputs = SimpleNamespace(pooler_output=embeddings, qformer_outputs=None, vision_outputs=None)
        extra = {"pixel_values": None, "mm_encoder_outputs": {"image": outputs}}
    elif isinstance(batch.pixels, torch.Tensor):
        inputs["pixel_values"] = batch.pixels
    logits: torch.Tensor = model(**inputs, **extra, use_cache=False).logits
    return logits


def _embeddings(model: torch.nn.Module, batch: Batch, projector: Projector) -> torch.Tensor | list[torch.Tensor]:
    """The inputs of the language tower for a batch's images, in the form in which the model takes them. Images of
    different sizes go through it one at a time: a projector may join neighbouring tokens, but not those of two."""
    module, place = model.get_submodule(projector.module), batch.inputs["input_ids"].device
    dtype = next(model.parameters()).dtype
    if isinstance(batch.features, list):
        return [module(one.to(place, dtype)) for one in batch.features]
    if batch.features is not None:
        projected: torch.Tensor = module(batch.features.to(place, dtype))
        return list(projected) if projector.listed else projected
    assert batch.pixels is not None
    seen = (model.get_image_features(one[None]).pooler_output for one in batch.pixels)  # type: ignore[operator]
    return [one for (one,) in seen]


def head_inputs(model: torch.nn.Module, batch: Batch, projector: Projector | None) -> torch.Tensor:
    """The inputs [positions, width] of the head at the batch's answer positions, as `answer_logits` gives its outputs.
    The head is not run."""
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    head.forward = _handed_on  # of this module alone: its class keeps its own
    try:
        return answer_logits(model, batch, projector)
    finally:
        del head.forward


def _handed_on(states: torch.Tensor) -> torch.Tensor:
    return states


@torch.no_grad()
def visual_features(
    model: torch.nn.Module, examples: Examples, anatomy: Anatomy, batch_size: int, new: NewFile = _TEMPORARY
) -> TensorRows | RaggedRows | None:
    """The inputs of the language side's projector for every image, in a file: [images, tokens, width], or of each image
    [tokens, width] where images have different numbers of tokens. None without images.

    They depend only on the image towers, not on projector and language tower.
    """
    pixels = examples.pixels
    if pixels is None or anatomy.projector is None:
        return None
    device, projector = next(model.parameters()).device, anatomy.projector
    found: TensorRows | NewRagged | None = None
    parts = [list(range(at, min(at + batch_size, len(pixels)))) for at in range(0, len(pixels), batch_size)]

    def see(images: torch.Tensor) -> torch.Tensor:
        return image_features(model, images.to(device), projector).cpu()

    def seen(_: int, portions: Iterator[Images]) -> Images:
        alike: list[torch.Tensor] = []
        apart: list[torch.Tensor] = []
        for images in portions:
            if isinstance(images, list):
                apart += [see(one[None]).flatten(0, -2) for one in images]
            else:
                alike.append(see(images))
        return torch.cat(alike) if alike else apart

    read = Portions(parts, pixels.once).fitting(seen, AtOnce(batch_size, "see"))
    for part, some in zip(parts, track(read, f"see {examples.split.name}", len(parts)), strict=True):
        if isinstance(some, list):
            found = found or new.ragged(some[0].shape[-1], some[0].dtype)
            assert isinstance(found, NewRagged), "the pixels of an image are a list's in all batches or in none"
            found.write(some)
        else:
            found = found or new.rows((len(pixels), *some.shape[1:]), some.dtype)
            assert isinstance(found, TensorRows)
            found.write(part, some)
    return found.done() if isinstance(found, NewRagged) else found


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
    new: NewFile = _TEMPORARY,
) -> TensorRows:
    """The head's inputs at every answer position: hidden states [positions, width] in the examples' order, in a tensor
    of `new`."""
    device = next(model.parameters()).device
    head = model.get_output_embeddings()  # type: ignore[operator]
    states: TensorRows | None = None

    def stated(_: int, portions: Iterator[Batch]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(batch.number.cpu(), states_of(batch)) for batch in portions]

    def states_of(batch: Batch) -> torch.Tensor:
        captured: list[torch.Tensor] = []
        with _input_of(head, captured):
            answer_logits(model, batch, projector)
        return captured[0].cpu()[batch.where.cpu()]

    found = Batches(examples, order, features, device).fitting(stated, AtOnce(max(map(len, order)), "teacher"))
    for number, values in chain.from_iterable(track(found, "teacher", len(order))):
        states = states or new.rows((examples.positions, values.shape[-1]), values.dtype)
        states.write(number.numpy(), values)
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
