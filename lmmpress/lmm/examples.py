"""From rows to tensors: the checkpoint's own processor makes the prompt, answers follow as token ids.

Only answer positions matter to scoring, distilling and measuring, so a batch names them, and `at_answers` makes the
model compute logits there and nowhere else.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from lmmpress.data import Row, Split, open_image
from lmmpress.errors import UserError
from lmmpress.progress import track

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer, the end token included. `image` counts the split's images."""

    prompt: list[int]
    answer: list[int]
    image: int | None
    row: Row

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Examples:
    """A split ready for the model. `see` makes its `pixels`, which nobody asks for where visual features are cached.

    `starts` says where each example's answer positions begin in tensors [positions, ...] of all examples' in order.
    `decoder_start` is the token that an encoder-decoder model's answers begin with, None for other models.
    """

    split: Split
    rows: list[Example]
    pad: int
    decoder_start: int | None = None
    see: Callable[[], torch.Tensor] | None = None

    @cached_property
    def pixels(self) -> torch.Tensor | None:
        """[images, channels, height, width], None for text alone."""
        return self.see() if self.see else None

    @cached_property
    def starts(self) -> list[int]:
        return [0, *accumulate(len(example.answer) for example in self.rows[:-1])]

    @property
    def positions(self) -> int:
        """The number of answer positions of all examples."""
        return self.starts[-1] + len(self.rows[-1].answer)


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right.

    `inputs` are the model's, but for pixels; `where` [batch, length] marks, of what its head sees, the positions whose
    logits predict an answer token, and `targets` [positions] are those tokens, example by example, `owner` [positions]
    says which example each belongs to, `number` [positions] where each stands among the answer positions of all
    examples.
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


def encode(split: Split, processor: Any, config: dict[str, Any]) -> Examples:
    """Run every row through the processor, for the model of that config (an anatomy's, where nothing is left out).

    Rows about one image share its pixels. Raises UserError for a prompt and answer longer than the input the model
    takes, and for an answer of which the tokenizer makes nothing.
    """
    text = config.get("text_config", config)
    decoder_start = text["decoder_start_token_id"] if text.get("is_encoder_decoder") else None
    longest = text.get("max_position_embeddings")
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end token, so no answer ever ends; set eos_token")
    by_image: dict[str | None, list[int]] = {}
    for index, row in enumerate(split.rows):
        by_image.setdefault(row.file_name, []).append(index)
    examples: list[Example | None] = [None] * len(split.rows)
    pixels = []
    for number, (name, indices) in enumerate(track(by_image.items(), f"encode {split.name}", len(by_image))):
        questions = [split.rows[index].question for index in indices]
        if name is None:
            prompts, image = tokenizer(questions)["input_ids"], None
        else:
            # where questions say at which place the image stands, each place asks for an image of its own
            placeholder = str(getattr(processor, "image_token", "<image>"))
            places = sum(question.count(placeholder) for question in questions)
            images = [open_image(split, name)] * max(1, places)
            made = processor(images=images, text=questions, return_tensors=None)
            prompts, image = made["input_ids"], number
            pixels.append(torch.as_tensor(made["pixel_values"][0]))
        for index, prompt in zip(indices, prompts, strict=True):
            row = split.rows[index]
            answer = [*tokenizer(row.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            if len(answer) == 1:
                raise UserError(f"{split.folder}: the tokenizer makes nothing of the answer {row.answer[:40]!r}")
            if longest is not None and len(prompt) + len(answer) > longest:
                raise UserError(
                    f"{split.folder}: the answer {row.answer[:40]!r} to {row.question[:40]!r} does not fit: prompt and "
                    f"answer are {len(prompt) + len(answer)} tokens, the model takes {longest}"
                )
            examples[index] = Example([int(token) for token in prompt], answer, image, row)
    rows = [example for example in examples if example is not None]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Examples(split, rows, pad, decoder_start, (lambda: torch.stack(pixels)) if pixels else None)


def to_tensors(examples: Examples) -> Tensors:
    """Everything but pixels: prompts and answers one after the other with their lengths, images, pad and start."""
    rows = examples.rows
    numbers = {
        "prompts": [token for row in rows for token in row.prompt],
        "prompt_lengths": [len(row.prompt) for row in rows],
        "answers": [token for row in rows for token in row.answer],
        "answer_lengths": [len(row.answer) for row in rows],
        "images": [-1 if row.image is None else row.image for row in rows],
        "pad": [examples.pad],
        "decoder_start": [-1 if examples.decoder_start is None else examples.decoder_start],
    }
    return {name: torch.tensor(values, dtype=torch.int32) for name, values in numbers.items()}


def from_tensors(tensors: Tensors, split: Split, see: Callable[[], torch.Tensor | None]) -> Examples:
    """What `to_tensors` was given, but for its pixels, which `see` makes."""
    prompts, answers = (
        [part.tolist() for part in tensors[name].split(tensors[lengths].tolist())]
        for name, lengths in (("prompts", "prompt_lengths"), ("answers", "answer_lengths"))
    )
    images = [None if image < 0 else image for image in tensors["images"].tolist()]
    rows = [Example(*parts) for parts in zip(prompts, answers, images, split.rows, strict=True)]
    start = int(tensors["decoder_start"])

    def pixels() -> torch.Tensor:
        made = see()
        assert made is not None
        return made

    seen = any(image is not None for image in images)
    return Examples(split, rows, int(tensors["pad"]), None if start < 0 else start, pixels if seen else None)


def make_batch(examples: Examples, chosen: list[int]) -> Batch:
    """Pad the chosen examples on the right to the longest among them.

    A decoder reads prompt and answer in one; an encoder-decoder's encoder reads the prompt, its decoder the answer.
    """
    rows = [examples.rows[index] for index in chosen]
    if examples.decoder_start is None:
        ids, attention = _padded([row.prompt + row.answer for row in rows], examples.pad)
        inputs = {"input_ids": ids, "attention_mask": attention}
        where = torch.zeros_like(ids, dtype=torch.bool)
        for place, row in enumerate(rows):
            where[place, len(row.prompt) - 1 : len(row) - 1] = True
    else:
        ids, attention = _padded([row.prompt for row in rows], examples.pad)
        answers, given = _padded([[examples.decoder_start, *row.answer[:-1]] for row in rows], examples.pad)
        inputs = {"input_ids": ids, "attention_mask": attention, "decoder_input_ids": answers}
        where = given.bool()
    return Batch(
        chosen,
        inputs,
        where,
        torch.tensor([token for row in rows for token in row.answer]),
        torch.tensor([place for place, row in enumerate(rows) for _ in row.answer]),
        torch.cat([examples.starts[index] + torch.arange(len(examples.rows[index].answer)) for index in chosen]),
    )


def _padded(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the right, and which of them are not padding."""
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    attention = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        attention[place, : len(row)] = 1
    return ids, attention


def batches(
    examples: Examples, batch_size: int, generator: torch.Generator | None = None, bucket: int = 16
) -> list[list[int]]:
    """Numbers of examples by batch, neighbours in length together so that little is padding.

    With a generator the examples are shuffled first: lengths are sorted only within `bucket` batches, and the batches
    come in random order. Without one the order is by length.
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
    """Within this context the model's head sees the answer positions alone: logits are [positions, vocabulary]."""

    def select(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][batch.where], *args[1:])

    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
