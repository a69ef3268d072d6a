"""A model gets the same tokens and pixels, and answers the same, in whatever form the rows are written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.certain import one_tensor
from support.data import write_data
from support.forms import FORMS, rewritten

from lmmpress.data import read_split
from lmmpress.evaluation.accuracy import Judged, judged
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Examples, encode
from lmmpress.lmm.processor import load_processor


@pytest.fixture(scope="module")
def imagefolder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("alike") / "data", {"train": 2, "test": 6})


@pytest.mark.parametrize("kind", ["llama", "llava-clip-llama"])
def test_every_form_gives_the_same_numbers_to_the_last_bit(
    make_checkpoint: Callable[..., Path], imagefolder: Path, tmp_path: Path, kind: str
) -> None:
    checkpoint = make_checkpoint(kind)
    examples, told = measured(checkpoint, imagefolder)
    for number, write in enumerate(FORMS):
        other, told_of_other = measured(checkpoint, rewritten(imagefolder, tmp_path / str(number), write))
        assert [(row.prompt, row.answer, row.images) for row in other.rows] == [
            (row.prompt, row.answer, row.images) for row in examples.rows
        ]
        assert torch.equal(seen(other), seen(examples))
        assert torch.equal(told_of_other.likelihood, told.likelihood)
        assert torch.equal(told_of_other.right, told.right)


def measured(checkpoint: Path, folder: Path) -> tuple[Examples, Judged]:
    anatomy = read_checkpoint(checkpoint)
    examples = encode(read_split(folder, "test"), load_processor(checkpoint), anatomy.config)
    return examples, judged(load_model(checkpoint), examples, anatomy.projector, None, 5)


def seen(examples: Examples) -> torch.Tensor:
    assert examples.pixels is not None
    return one_tensor(examples.pixels[range(len(examples.pixels))])
