"""Converts rows to tensors: the checkpoint's own processor encodes the prompt, the tokenizer encodes the answer.

Scoring, distilling and evaluating use only the answer positions, so a batch marks them, and with `at_answers` the model
computes logits only there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, repeat
from typing import Any

import torch
from PIL import Image

from lmmpress.data import Row, Split, open_image
from lmmpress.data.rows import open_images
from lmmpress.errors import UserError
from lmmpress.lmm.compatibility import fitted, prompt_text, puts_image_in_front
from lmmpress.lmm.processor import PASSED_ON, tokenizer_of
from lmmpress.progress import say_once, track

Tensors = dict[str, torch.Tensor]
_TEXTS_AT_ONCE = 1000


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer, including the end token. `image` is the index of its image in the split."""

    prompt: list[int]
    answer: list[int]
    image: int | None
    row: Row

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


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
        return [0, *accumulate(len(example.answer) for example in self.rows[:-1])]

    @property
    def positions(self) -> int:
        """The number of answer positions in all examples."""
        return self.starts[-1] + len(self.rows[-1].answer)


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


def encode(split: Split, processor: Any, config: dict[str, Any], answered: bool = True) -> Examples:
    """Encode every row with the processor. `config` is the model's complete config, as in an anatomy.

    Rows about one image share its pixels. Without `answered` only the prompts are encoded. Raises UserError for rows
    that do not fit the model (see compatibility.py), for a prompt and answer longer than the model's longest input, and
    for a question or answer that gives no tokens.
    """
    encoder = Encoder(split, processor, config)
    answers = encoder.answers(split.rows) if answered else [[] for _ in split.rows]
    by_image: dict[str | None, list[int]] = {}
    for index, row in enumerate(split.rows):
        by_image.setdefault(row.picture, []).append(index)
    examples: list[Example | None] = [None] * len(split.rows)
    pixels = []
    images: Iterator[Image.Image | None] = repeat(None) if None in by_image else open_images(split)
    groups = track(zip(by_image.values(), images, strict=False), f"encode {split.name}", len(by_image))
    for number, (indices, image) in enumerate(groups):
        prompts, image_pixels = encoder.prompts([split.rows[index] for index in indices], image)
        if image_pixels is not None:
            pixels.append(image_pixels)
        for index, prompt in zip(indices, prompts, strict=True):
            encoder.check_length(split.rows[index], len(prompt), len(answers[index]))
            place = None if image_pixels is None else number
            examples[index] = Example(prompt, answers[index], place, split.rows[index])
    rows = [example for example in examples if example is not None]
    see = (lambda: torch.stack(pixels)) if pixels else None
    return Examples(split, rows, encoder.pad, encoder.decoder_start, see)


def check_rows(split: Split, processor: Any, config: dict[str, Any]) -> None:
    """Raise the UserErrors that `encode` would: decode every image and count the tokens of every prompt and answer.

    Only the first image goes through the image processor, since all images give the same number of tokens and pixels.
    """
    encoder = Encoder(split, processor, config)
    answers = encoder.answers(split.rows)
    encoder.warn_unknown(answers)
    texts = [prompt_text(split, row, encoder.processor) for row in split.rows]
    first = split.rows[0]
    image = None if first.file_name is None else open_image(split, first.file_name)
    lengths = [len(ids) for ids in encoder.tokens(texts, split.rows)]
    image_tokens = len(encoder.prompts([first], image)[0][0]) - lengths[0]  # tokens that an image adds to the text
    for row, length, answer in zip(split.rows, lengths, answers, strict=True):
        if length == 0:
            encoder.prompts([row], image)
        encoder.check_length(row, length + image_tokens, len(answer))
    for _ in track(open_images(split), f"check {split.name}", len(split.image_names())):
        pass


class Encoder:
    """Converts the rows of a split to token ids and pixels with a checkpoint's processor."""

    def __init__(self, split: Split, processor: Any, config: dict[str, Any]) -> None:
        self.split = split
        self.processor = fitted(processor, config)
        self._tokenizer = tokenizer_of(processor)
        if self._tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end token, so no answer ever ends; set eos_token")
        text = config.get("text_config", config)
        self.decoder_start = text["decoder_start_token_id"] if text.get("is_encoder_decoder") else None
        self._longest = text.get("max_position_embeddings")
        self._side = config.get("vision_config", {}).get("image_size")

    @property
    def pad(self) -> int:
        """The token id that pads batches."""
        pad = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id if pad is None else pad)

    def prompts(self, rows: Sequence[Row], image: Image.Image | None) -> tuple[list[list[int]], torch.Tensor | None]:
        """Token ids of the prompts of rows about one image (or none), and its pixels [channels, height, width]."""
        texts = [prompt_text(self.split, row, self.processor) for row in rows]
        if image is None:
            prompts, pixels = self.tokens(texts, rows), None
        else:
            # a processor that reads the image's position from the text needs one image for each text
            images = [image] * (1 if puts_image_in_front(self.processor) else len(rows))
            with self._naming_row(rows[0]):
                encoded = self.processor(images=images, text=texts, return_tensors=None)
                prompts, pixels = encoded["input_ids"], torch.as_tensor(encoded["pixel_values"][0])
            self._check_pixels(pixels)
        for row, prompt in zip(rows, prompts, strict=True):
            if not len(prompt):
                raise UserError(f"{self.split.place(row)}: the tokenizer makes nothing of the question; change it")
        return [[int(token) for token in prompt] for prompt in prompts], pixels

    def answers(self, rows: Sequence[Row]) -> list[list[int]]:
        """Token ids of the rows' answers, including the end token."""
        answers = self.tokens([row.answer for row in rows], rows, add_special_tokens=False)
        for row, answer in zip(rows, answers, strict=True):
            if not answer:
                raise UserError(
                    f"{self.split.place(row)}: the tokenizer makes nothing of the answer {row.answer[:40]!r}; change it"
                )
        return [[*answer, self._tokenizer.eos_token_id] for answer in answers]

    def warn_unknown(self, answers: list[list[int]]) -> None:
        """Print how many answers contain characters without a token; the end token does not count."""
        unknown = self._tokenizer.unk_token_id
        rows = [row for row, answer in zip(self.split.rows, answers, strict=True) if unknown in answer[:-1]]
        if rows:
            say_once(
                f"{self.split.place(rows[0])}: the tokenizer has no token for some characters of the answer, as in "
                f"{len(rows)} answers of split {self.split.name}; generated text can never equal these answers, but "
                "generated tokens can"
            )

    def tokens(self, texts: Sequence[str], rows: Sequence[Row], **how: Any) -> list[list[int]]:
        """Token ids of the texts of rows, without image tokens."""
        ids: list[list[int]] = []
        for at in range(0, len(texts), _TEXTS_AT_ONCE):
            with self._naming_row(rows[at]):
                ids += self._tokenizer(list(texts[at : at + _TEXTS_AT_ONCE]), **how)["input_ids"]
        return ids

    def check_length(self, row: Row, prompt: int, answer: int) -> None:
        """Raise UserError if prompt and answer together have more tokens than the model takes."""
        if self._longest is not None and prompt + answer > self._longest:
            raise UserError(
                f"{self.split.place(row)}: the answer {row.answer[:40]!r} does not fit: prompt and answer are "
                f"{prompt + answer} tokens, the model takes {self._longest}; shorten the row, or leave it out"
            )

    def _check_pixels(self, pixels: torch.Tensor) -> None:
        height, width = pixels.shape[-2:]
        if self._side is not None and (height, width) != (self._side, self._side):
            raise UserError(
                f"the image processor makes pictures of {height} x {width} pixels, the vision tower takes "
                f"{self._side} x {self._side}; correct size and crop_size in the processor's files"
            )

    @contextmanager
    def _naming_row(self, row: Row) -> Iterator[None]:
        """Turn any exception of the processor into a UserError that names the row."""
        try:
            yield
        except PASSED_ON:
            raise
        except BaseException as error:  # a panic of the tokenizers library is not an Exception
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{self.split.place(row)}: the checkpoint's processor fails at this row, or soon after it: "
                f"{type(error).__name__}: {reason}"
            ) from error


def to_tensors(examples: Examples) -> Tensors:
    """Examples without pixels as tensors: concatenated prompts and answers with their lengths, images, pad, start."""
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
    """The inverse of `to_tensors`; `see` computes the pixels."""
    prompts, answers = (
        [part.tolist() for part in tensors[name].split(tensors[lengths].tolist())]
        for name, lengths in (("prompts", "prompt_lengths"), ("answers", "answer_lengths"))
    )
    images = [None if image < 0 else image for image in tensors["images"].tolist()]
    rows = [Example(*parts) for parts in zip(prompts, answers, images, split.rows, strict=True)]
    start = int(tensors["decoder_start"])

    def pixels() -> torch.Tensor:
        computed = see()
        assert computed is not None
        return computed

    has_images = any(image is not None for image in images)
    return Examples(split, rows, int(tensors["pad"]), None if start < 0 else start, pixels if has_images else None)


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
    else:
        ids, attention = _padded([row.prompt for row in rows], examples.pad)
        answers, not_padding = _padded([[examples.decoder_start, *row.answer[:-1]] for row in rows], examples.pad)
        inputs = {"input_ids": ids, "attention_mask": attention, "decoder_input_ids": answers}
        where = not_padding.bool()
    return Batch(
        chosen,
        inputs,
        where,
        torch.tensor([token for row in rows for token in row.answer]),
        torch.tensor([place for place, row in enumerate(rows) for _ in row.answer]),
        torch.cat([examples.starts[index] + torch.arange(len(examples.rows[index].answer)) for index in chosen]),
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
