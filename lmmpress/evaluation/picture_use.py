"""Checks that images reach a model: other images must change its logits.

If they do not, the processor adds no image tokens, or it passes the same pixels for all images. Then accuracy, scores
and distillation would be those of a model that guesses.
"""

from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from lmmpress.data import Row, Split, open_image
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import make_batch
from lmmpress.lmm.examples import Examples, encode, with_rows
from lmmpress.lmm.forward import answer_logits
from lmmpress.plan import Template

_ROWS = 4
_ROUNDING = 16 * torch.finfo(torch.float32).eps  # of the largest logit


def rows_of_different_images(split: Split) -> Split:
    """A few rows of a split about different images; no rows if the split has no images."""
    first: dict[str, Row] = {}
    for row in split.rows:
        if row.picture is not None:
            first.setdefault(row.picture, row)
    names = list(first)
    chosen = sorted({number * len(names) // _ROWS for number in range(_ROWS)}) if names else []
    return replace(split, rows=tuple(first[names[number]] for number in chosen))


@torch.no_grad()
def sees(model: torch.nn.Module, split: Split, processor: Any, anatomy: Anatomy, template: Template = "auto") -> bool:
    """Whether other images change the logits of the rows of a small split by more than rounding.

    First the rows exchange their images. If that changes nothing, as with equal images, they get images of noise.
    """
    examples = encode(split, processor, anatomy.config, template=template)
    logits = _logits(model, examples, anatomy)
    repeated = _logits(model, examples, anatomy)
    rounding = max(2 * _distance(repeated, logits), _ROUNDING * float(logits.abs().max()))
    others = [*examples.rows[1:], examples.rows[0]]
    swapped = [
        replace(row, images=tuple(islice(cycle(other.images), len(row.images))))
        for row, other in zip(examples.rows, others, strict=True)
    ]
    if _distance(_logits(model, with_rows(examples, swapped, ""), anatomy), logits) > rounding:
        return True
    with TemporaryDirectory() as folder:
        noisy = encode(_with_noise(split, Path(folder)), processor, anatomy.config, template=template)
        return _distance(_logits(model, noisy, anatomy), logits) > rounding


def _logits(model: torch.nn.Module, examples: Examples, anatomy: Anatomy) -> torch.Tensor:
    """Logits at all answer positions of the examples, as one batch, in float32; of a row without an answer at the
    position after the question."""
    rows = [row if row.answer else replace(row, answer=[examples.pad]) for row in examples.rows]
    examples = with_rows(examples, rows, "")
    batch = make_batch(examples, list(range(len(examples.rows)))).to(next(model.parameters()).device)
    return answer_logits(model, batch, anatomy.projector).float()


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def _with_noise(split: Split, folder: Path) -> Split:
    """The same questions about images of noise, each of the same size as the row's image; written to a folder."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number, row in enumerate(split.rows):
        names = tuple(f"{number}-{place}.png" for place in range(len(row.pictures)))
        for name, picture in zip(names, row.pictures, strict=True):
            width, height = open_image(split, picture).size
            values = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(values.numpy(), "RGB").save(folder / name)
        rows.append(replace(row, pictures=names))
    return replace(split, folder=folder, rows=tuple(rows), index=None)
