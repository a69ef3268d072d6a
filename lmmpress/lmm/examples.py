"""Converts the rows of a split to examples: token ids, and the pixels of their images."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmmpress.data import Row, Split
from lmmpress.data.rows import open_images
from lmmpress.lmm.encoder import ROWS_AT_ONCE, Encoded, Encoder
from lmmpress.lmm.example_rows import Example, ExampleRows, Numbers, open_examples, pack
from lmmpress.lmm.pixels import Images, Pixels
from lmmpress.plan import Template, Turns, digest_of
from lmmpress.progress import counter, say_once, track

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Examples:
    """An encoded split. Without images `pixels` is None; with cached visual features no pixels are read.

    `decoder_start` is the first decoder token of an encoder-decoder model, None for other models. `goals` reads what
    the teacher makes of some examples, where batches are to have it.
    """

    split: Split
    rows: ExampleRows
    pad: int
    decoder_start: int | None = None
    pixels: Pixels | None = None
    goals: Callable[[Sequence[int]], Images] | None = None

    @cached_property
    def starts(self) -> Numbers:
        """The first answer position of each example in tensors [positions, ...] over all examples in order, and the
        number of all, [rows + 1]."""
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(self.rows.positions)))

    @property
    def positions(self) -> int:
        """The number of answer positions in all examples."""
        return int(self.starts[-1])

    def numbers_of(self, chosen: Sequence[int]) -> Numbers:
        """The numbers of the answer positions of the chosen rows among those of all rows, row by row."""
        parts = (np.arange(self.starts[row], self.starts[row + 1]) for row in chosen)
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def images_of(self, chosen: Sequence[int]) -> list[int]:
        """The images of the chosen rows, in the order of their places in a batch of them."""
        return list(chain.from_iterable(map(self.rows.images, chosen)))

    def judged(self) -> "Examples":
        """The same rows without the answers of earlier turns among the answer positions: only last answers are
        judged."""
        if not self.rows.has_earlier:
            return self
        alone = (replace(row, earlier=()) for row in self.rows)
        return with_rows(self, alone, digest_of({"judged": self.split.digest}))

    def save(self, path: Path) -> None:
        """Write the token ids to a safetensors file."""
        start = -1 if self.decoder_start is None else self.decoder_start
        self.rows.save(path, {"pad": self.pad, "decoder_start": start})


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
    with Encoder(split, processor, config, answered, turns, template) as encoder:
        rows = pack(_examples(encoder))
        return Examples(split, rows, encoder.pad, encoder.decoder_start, _pixels(split, processor, config))


def read_examples(path: Path, split: Split, processor: Any, config: dict[str, Any]) -> Examples:
    """The examples of a split from the file that `Examples.save` wrote. ValueError or KeyError for another file."""
    rows, others = open_examples(path)
    if len(rows) != len(split.rows):
        raise ValueError(f"it has {len(rows)} rows, not {len(split.rows)}")
    start = others["decoder_start"]
    return Examples(split, rows, others["pad"], None if start < 0 else start, _pixels(split, processor, config))


def with_rows(examples: Examples, rows: Iterable[Example], digest: str) -> Examples:
    """The same images with other rows about them: those of a split with this digest."""
    return replace(examples, split=replace(examples.split, digest=digest), rows=pack(rows), goals=None)


def check_rows(
    split: Split,
    processor: Any,
    config: dict[str, Any],
    answered: bool = True,
    turns: Turns = "last",
    template: Template = "auto",
) -> None:
    """Raise the UserErrors that `encode` and its pixels would: encode every row, and decode every image.

    Only the first image goes through the image processor, since all images give the same number of tokens and pixels.
    """
    unknown, first = 0, None
    with _decoding(split), Encoder(split, processor, config, answered, turns, template) as encoder:
        for row, one in _encoded(encoder):
            if encoder.unknown(one):
                unknown, first = unknown + 1, first or row
        pixels = _pixels(split, processor, config)
        if pixels is not None:
            pixels[[0]]
    if first is not None:
        say_once(
            f"{split.place(first)}: the tokenizer has no token for some characters of the answer, as in "
            f"{unknown} answers of split {split.name}; generated text can never equal these answers, but "
            "generated tokens can"
        )


@contextmanager
def _decoding(split: Split) -> Iterator[None]:
    """Decode every image of a split while the block runs, and go on after it. What the block raises comes first."""
    images, given_up = len(split.images.names), threading.Event()

    def decode() -> None:
        for _ in open_images(split):
            advance(1)
            if given_up.is_set():
                return

    with counter(f"check {split.name}", images) as advance, ThreadPoolExecutor(1) as pool:
        done = pool.submit(decode)
        try:
            yield
            done.result()
        except BaseException:
            given_up.set()
            raise


def _examples(encoder: Encoder) -> Iterator[Example]:
    images, at = encoder.split.images, 0
    for (_, one), count in zip(_encoded(encoder), images.counts.tolist(), strict=True):
        yield Example(one.prompt, one.answer, tuple(images.numbers[at : at + count].tolist()), one.earlier)
        at += count


def _encoded(encoder: Encoder) -> Iterator[tuple[Row, Encoded]]:
    """Every row of the encoder's split, encoded."""
    rows = encoder.split.rows
    starts = range(0, len(rows), ROWS_AT_ONCE)
    for at in track(starts, f"tokens {encoder.split.name}", len(starts)):
        some = list(rows[at : at + ROWS_AT_ONCE])
        yield from zip(some, encoder.rows(some), strict=True)


def _pixels(split: Split, processor: Any, config: dict[str, Any]) -> Pixels | None:
    return Pixels(split, processor, config) if len(split.images.names) else None
