"""Converts rows to tensors: examples with token ids, and batches of them.

Scoring, distilling and evaluating use only the answer positions, so a batch marks them, and with `at_answers` the model
computes logits only there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from lmmpress.data import Row, Split, open_image
from lmmpress.data.rows import open_images
from lmmpress.lmm.encoder import ROWS_AT_ONCE, Encoded, Encoder
from lmmpress.plan import Template, Turns, digest_of
from lmmpress.progress import say_once, track

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer, including the end token. `images` are the indices of its images in the split, in
    the order of their places.

    `earlier` are the answers of earlier turns in the prompt that the loss is on too: each one's first token, and the
    token behind its last one, where the model should have ended.
    """

    prompt: list[int]
    answer: list[int]
    images: tuple[int, ...]
    row: Row
    earlier: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def targets(self) -> list[int]:
        """The tokens that the answer positions predict, turn by turn; every answer ends with the end token."""
        ended = (token for start, end in self.earlier for token in (*self.prompt[start:end], self.answer[-1]))
        return [*ended, *self.answer]

    @property
    def positions(self) -> int:
        """The number of answer positions."""
        return sum(end - start + 1 for start, end in self.earlier) + len(self.answer)


@dataclass(frozen=True)
class Examples:
    """An encoded split. `see` computes its `pixels` on first use; with cached visual features they are never used.

    `starts` holds the first answer position of each example in tensors [positions, ...] over all examples in order.
    `decoder_start` is the first decoder token of an encoder-decoder model, None for other models.
    """

    split: Split
    rows: list[Example]
    pad: int
    decoder_start: int | None = None
    see: Callable[[], torch.Tensor] | None = None

    @cached_property
    def pixels(self) -> torch.Tensor | None:
        """[images, channels, height, width]; None for text-only examples."""
        return self.see() if self.see else None

    @cached_property
    def starts(self) -> list[int]:
        return [0, *accumulate(example.positions for example in self.rows[:-1])]

    @property
    def positions(self) -> int:
        """The number of answer positions in all examples."""
        return self.starts[-1] + self.rows[-1].positions

    def images_of(self, chosen: Sequence[int]) -> list[int]:
        """The images of the chosen rows, in the order of their places in a batch of them."""
        return [image for index in chosen for image in self.rows[index].images]

    def judged(self) -> "Examples":
        """The same rows without the answers of earlier turns among the answer positions: only last answers are
        judged."""
        if not any(row.earlier for row in self.rows):
            return self
        alone = [replace(row, earlier=()) for row in self.rows]
        return with_rows(self, alone, digest_of({"judged": self.split.digest}))


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right.

    `inputs` are the model's inputs without pixels. `where` [batch, length] marks the positions of the head's input
    whose logits predict an answer token. `targets` [positions] are these tokens, example by example. `owner`
    [positions] is the example of each position, as an index into the batch. `number` [positions] is the index of each
    position among the answer positions of all examples.
    """

    examples: list[int]
    inputs: Tensors
    where: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    number: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            self.examples,
            {name: value.to(device) for name, value in self.inputs.items()},
            *(value.to(device) for value in (self.where, self.targets, self.owner, self.number)),
        )


def encode(
    split: Split,
    processor: Any,
    config: dict[str, Any],
    answered: bool = True,
    turns: Turns = "last",
    template: Template = "auto",
) -> Examples:
    """Encode every row. `config` is the model's complete config, as in an anatomy.

    Rows about one image share its pixels. Without `answered` only the prompts are encoded. With turns `all` the answers
    of earlier turns are answers, too. Raises UserError for rows that do not fit the model (see prompts.py), for a
    prompt and answer longer than the model's longest input, and for a question or answer that gives no tokens.
    """
    number = {name: place for place, name in enumerate(split.image_names())}
    with Encoder(split, processor, config, answered, turns, template) as encoder:
        rows = [
            Example(one.prompt, one.answer, tuple(number[name] for name in row.pictures), row, one.earlier)
            for row, one in _encoded(encoder)
        ]
        pixels = _pixels(encoder)
    return Examples(split, rows, encoder.pad, encoder.decoder_start, (lambda: torch.stack(pixels)) if pixels else None)


def see_all(split: Split, processor: Any, config: dict[str, Any]) -> torch.Tensor:
    """The pixels [images, channels, height, width] of all images of a split, as in its examples."""
    with Encoder(split, processor, config) as encoder:
        return torch.stack(_pixels(encoder))


def check_rows(
    split: Split,
    processor: Any,
    config: dict[str, Any],
    answered: bool = True,
    turns: Turns = "last",
    template: Template = "auto",
) -> None:
    """Raise the UserErrors that `encode` would: encode every row, and decode every image.

    Only the first image goes through the image processor, since all images give the same number of tokens and pixels.
    """
    with Encoder(split, processor, config, answered, turns, template) as encoder:
        unknown = [row for row, one in _encoded(encoder) if encoder.unknown(one)]
        first = next((row for row in split.rows if row.pictures), None)
        if first:
            encoder.pixels(open_image(split, first.pictures[0]), first)
    if unknown:
        say_once(
            f"{split.place(unknown[0])}: the tokenizer has no token for some characters of the answer, as in "
            f"{len(unknown)} answers of split {split.name}; generated text can never equal these answers, but "
            "generated tokens can"
        )
    for _ in track(open_images(split), f"check {split.name}", len(split.image_names())):
        pass


def _encoded(encoder: Encoder) -> Iterator[tuple[Row, Encoded]]:
    """Every row of the encoder's split, encoded."""
    rows = encoder.split.rows
    starts = range(0, len(rows), ROWS_AT_ONCE)
    for at in track(starts, f"tokens {encoder.split.name}", len(starts)):
        some = list(rows[at : at + ROWS_AT_ONCE])
        yield from zip(some, encoder.rows(some), strict=True)


def _pixels(encoder: Encoder) -> list[torch.Tensor]:
    """The pixels of every image of the encoder's split, in the order of its names."""
    split = encoder.split
    first: dict[str, Row] = {}
    for row in split.rows:
        for name in row.pictures:
            first.setdefault(name, row)
    images = track(open_images(split), f"encode {split.name}", len(first))
    return [encoder.pixels(image, row) for row, image in zip(first.values(), images, strict=True)]


def to_tensors(examples: Examples) -> Tensors:
    """Examples without pixels as tensors: concatenated prompts and answers with their lengths, images, pad, start.

    Examples of several images, or of answers of earlier turns, have two tensors more for each: the numbers of them by
    row, and all of them.
    """
    rows = examples.rows
    numbers = {
        "prompts": [token for row in rows for token in row.prompt],
        "prompt_lengths": [len(row.prompt) for row in rows],
        "answers": [token for row in rows for token in row.answer],
        "answer_lengths": [len(row.answer) for row in rows],
        "pad": [examples.pad],
        "decoder_start": [-1 if examples.decoder_start is None else examples.decoder_start],
    }
    if all(len(row.images) < 2 for row in rows):  # as earlier versions wrote it
        numbers["images"] = [row.images[0] if row.images else -1 for row in rows]
    else:
        numbers["images"] = [image for row in rows for image in row.images]
        numbers["image_counts"] = [len(row.images) for row in rows]
    if any(row.earlier for row in rows):
        numbers["earlier"] = [place for row in rows for span in row.earlier for place in span]
        numbers["earlier_counts"] = [2 * len(row.earlier) for row in rows]
    return {name: torch.tensor(values, dtype=torch.int32) for name, values in numbers.items()}


def from_tensors(tensors: Tensors, split: Split, see: Callable[[], torch.Tensor]) -> Examples:
    """The inverse of `to_tensors`; `see` computes the pixels."""

    def by_row(name: str, lengths: str) -> list[list[int]]:
        return [part.tolist() for part in tensors[name].split(tensors[lengths].tolist())]

    prompts, answers = by_row("prompts", "prompt_lengths"), by_row("answers", "answer_lengths")
    if "image_counts" in tensors:
        images = by_row("images", "image_counts")
    else:
        images = [[] if image < 0 else [image] for image in tensors["images"].tolist()]
    places = by_row("earlier", "earlier_counts") if "earlier" in tensors else [[] for _ in prompts]
    earlier = (tuple(zip(one[::2], one[1::2], strict=True)) for one in places)
    parts = zip(prompts, answers, map(tuple, images), split.rows, earlier, strict=True)
    rows = [Example(*part) for part in parts]
    start = int(tensors["decoder_start"])
    return Examples(split, rows, int(tensors["pad"]), None if start < 0 else start, see if any(images) else None)


def with_rows(examples: Examples, rows: list[Example], digest: str) -> Examples:
    """The same pixels with other rows about them: those of a split with this digest."""

    def pixels() -> torch.Tensor:
        assert examples.pixels is not None
        return examples.pixels

    split = replace(examples.split, digest=digest)
    return Examples(split, rows, examples.pad, examples.decoder_start, pixels if examples.see else None)


def make_batch(examples: Examples, chosen: list[int]) -> Batch:
    """Make a batch of the chosen examples, padded on the right to the longest of them.

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
    return Batch(
        chosen,
        inputs,
        where,
        torch.tensor([token for row in rows for token in row.targets]),
        torch.tensor([place for place, row in enumerate(rows) for _ in range(row.positions)]),
        torch.cat([examples.starts[index] + torch.arange(examples.rows[index].positions) for index in chosen]),
    )


def _padded(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the right, and the mask that is 1 where they are not padding."""
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    attention = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        attention[place, : len(row)] = 1
    return ids, attention


def batches(
    examples: Examples, batch_size: int, generator: torch.Generator | None = None, bucket: int = 16
) -> list[list[int]]:
    """The indices of the examples of each batch. The examples of a batch have similar lengths, to save padding.

    Without a generator the examples are sorted by length. With one they are shuffled first, sorted by length only
    within groups of `bucket` batches, and the batches are shuffled again.
    """
    order = list(range(len(examples.rows)))
    if generator is None:
        order.sort(key=lambda index: len(examples.rows[index]))
        return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    order = torch.randperm(len(order), generator=generator).tolist()
    groups = []
    for at in range(0, len(order), batch_size * bucket):
        near = sorted(order[at : at + batch_size * bucket], key=lambda index: len(examples.rows[index]))
        groups += [near[start : start + batch_size] for start in range(0, len(near), batch_size)]
    return [groups[place] for place in torch.randperm(len(groups), generator=generator).tolist()]


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
