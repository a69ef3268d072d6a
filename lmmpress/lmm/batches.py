"""Batches of examples: which rows go together, and their tensors.

Scoring, distilling and evaluating use only the answer positions, so a batch marks them, and with `at_answers` the model
computes logits only there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from lmmpress.lmm.examples import Examples, Tensors
from lmmpress.lmm.pixels import Images
from lmmpress.lmm.portions import Portions
from lmmpress.lmm.ragged_rows import RaggedRows
from lmmpress.lmm.tensor_rows import TensorRows

Features = TensorRows | RaggedRows | torch.Tensor
"""The visual features of all images, by their indices."""


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right.

    `inputs` are the model's inputs without images. `where` [batch, length] marks the positions of the head's input
    whose logits predict an answer token. `targets` [positions] are these tokens, example by example. `owner`
    [positions] is the example of each position, as an index into the batch. `number` [positions] is the index of each
    position among the answer positions of all examples.

    The images of the examples, in the order of their places, are either `pixels` [images, channels, height, width], or
    `features` [images, tokens, width], the projector's inputs; both are None without images. Where images differ in
    size, either is a list with an entry for each of them. `goals` are what the teacher makes of the examples, if it is
    to be learned and was computed before: the inputs of its head [positions, width], or its visual features.
    """

    examples: list[int]
    inputs: Tensors
    where: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    number: torch.Tensor
    pixels: Images | None = None
    features: Images | None = None
    goals: Images | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            self.examples,
            {name: value.to(device) for name, value in self.inputs.items()},
            *(value.to(device) for value in (self.where, self.targets, self.owner, self.number)),
            *(_moved(value, device) for value in (self.pixels, self.features, self.goals)),
        )


def _moved(images: Images | None, device: torch.device) -> Images | None:
    if images is None or isinstance(images, torch.Tensor):
        return images if images is None else images.to(device)
    return [one.to(device) for one in images]


def make_batch(examples: Examples, chosen: list[int], features: Features | None = None) -> Batch:
    """Make a batch of the chosen examples, padded on the right to the longest of them; with `features` [images, tokens,
    width] of all images, those of its images instead of their pixels.

    A decoder reads prompt and answer as one sequence. In an encoder-decoder the encoder reads the prompt and the
    decoder the answer.
    """
    rows = [examples.rows[index] for index in chosen]
    if examples.decoder_start is None:
        ids, attention = _padded([row.prompt + row.answer for row in rows], examples.pad)
        inputs = {"input_ids": ids, "attention_mask": attention}
        where = torch.zeros_like(ids, dtype=torch.bool)
        for place, row in enumerate(rows):
            where[place, len(row.prompt) - 1 : len(row) - 1] = True
            for start, end in row.earlier:
                where[place, start - 1 : end] = True
    else:
        ids, attention = _padded([row.prompt for row in rows], examples.pad)
        answers, not_padding = _padded([[examples.decoder_start, *row.answer[:-1]] for row in rows], examples.pad)
        inputs = {"input_ids": ids, "attention_mask": attention, "decoder_input_ids": answers}
        where = not_padding.bool()
    images = list(chain.from_iterable(row.images for row in rows))
    pixels = None if features is not None else examples.pixels
    number = examples.numbers_of(chosen)
    return Batch(
        chosen,
        inputs,
        where,
        torch.tensor([token for row in rows for token in row.targets]),
        torch.tensor([place for place, row in enumerate(rows) for _ in range(row.positions)]),
        torch.from_numpy(number),
        pixels[images] if images and pixels is not None else None,
        features[images] if images and features is not None else None,
        examples.goals(chosen) if examples.goals else None,
    )


def _padded(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the right, and the mask that is 1 where they are not padding."""
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    attention = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        attention[place, : len(row)] = 1
    return ids, attention


class Order(Sequence[list[int]]):
    """The examples of each batch, by their indices: batches of one size in some order, of which the last one that was
    cut may be shorter."""

    def __init__(self, examples: NDArray[np.int64], size: int, batches: NDArray[np.int64] | None = None) -> None:
        self._examples, self._size = examples, size
        self._batches = np.arange(-(-len(examples) // size)) if batches is None else batches

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, place: int) -> list[int]: ...
    @overload
    def __getitem__(self, place: slice) -> "Order": ...
    def __getitem__(self, place: int | slice) -> "list[int] | Order":
        if isinstance(place, slice):
            return Order(self._examples, self._size, self._batches[place])
        at = int(self._batches[place]) * self._size
        found: list[int] = self._examples[at : at + self._size].tolist()
        return found


def grouped(
    examples: Examples,
    batch_size: int,
    generator: torch.Generator | None = None,
    bucket: int = 16,
    rows: NDArray[np.int64] | None = None,
) -> Sequence[list[int]]:
    """The indices of the examples of each batch: of all, or of some `rows`, which need a generator. The examples of a
    batch have similar lengths, to save padding.

    Without a generator the examples are sorted by length. With one they are shuffled first, sorted by length only
    within groups of `bucket` batches, and the batches are shuffled again.
    """
    lengths = examples.rows.lengths
    if generator is None:
        return Order(np.argsort(lengths, kind="stable"), batch_size)
    order = torch.randperm(len(lengths) if rows is None else len(rows), generator=generator).numpy()
    if rows is not None:
        order = rows[order]
    near = batch_size * bucket
    for at in range(0, len(order), near):
        part = order[at : at + near]
        order[at : at + near] = part[np.argsort(lengths[part], kind="stable")]
    count = -(-len(order) // batch_size)
    return Order(order, batch_size, torch.randperm(count, generator=generator).numpy())


def grouped_rows(examples: Examples, batch_size: int, rows: Sequence[int]) -> Sequence[list[int]]:
    """The indices of some examples, those of each batch, sorted by length."""
    chosen = np.unique(np.asarray(rows, dtype=np.int64))
    return Order(chosen[np.argsort(examples.rows.lengths[chosen], kind="stable")], batch_size)


class Batches(Portions[Batch]):
    """Batches of examples on a device."""

    def __init__(
        self,
        examples: Examples,
        order: Sequence[list[int]],
        features: Features | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(
            order,
            lambda chosen: make_batch(examples, chosen, features),
            lambda batch: batch if device is None else batch.to(device),
        )


@contextmanager
def at_answers(model: torch.nn.Module, batch: Batch) -> Iterator[None]:
    """In this context the model's head gets only the answer positions: logits are [positions, vocabulary]."""

    def select(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][batch.where], *args[1:])

    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
