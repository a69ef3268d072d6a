"""Rows of different lengths in files, and images with different numbers of visual tokens, which need them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.certain import certain
from support.tiny import llava_config, text_config

from lmmpress.data import read_split
from lmmpress.lmm.anatomy import Anatomy, Projector
from lmmpress.lmm.batches import Batches, make_batch
from lmmpress.lmm.example_rows import Example, pack
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.forward import answer_logits, image_features, visual_features
from lmmpress.lmm.pixels import Images, Pixels
from lmmpress.lmm.ragged_rows import NewFile, RaggedRows, open_either
from lmmpress.lmm.tensor_rows import TensorRows, save_rows

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def made(lengths: list[int], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    values = torch.arange(sum(lengths) * 3, dtype=dtype).view(-1, 3)
    return list(values.split(lengths))


def written(new: NewFile, rows: list[torch.Tensor], at_once: int = 2) -> RaggedRows:
    writing = new.ragged(3, rows[0].dtype)
    for begin in range(0, len(rows), at_once):
        writing.write(rows[begin : begin + at_once])
    return writing.done()


@given(lengths=LENGTHS, data=st.data(), at_once=st.integers(1, 6))
def test_rows_are_read_in_the_order_of_their_numbers(lengths: list[int], data: st.DataObject, at_once: int) -> None:
    rows = made(lengths)
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
    found = written(NewFile(), rows, at_once)
    assert len(found) == len(rows)
    assert [one.tolist() for one in found[numbers]] == [rows[number].tolist() for number in numbers]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_is_one_of_safetensors_and_is_read_again(dtype: torch.dtype, tmp_path: Path) -> None:
    rows = made([2, 0, 3], dtype)
    written(NewFile(tmp_path / "file", "values"), rows)
    loaded = load_file(tmp_path / "file")
    assert torch.equal(loaded["values"], torch.cat(rows))
    assert loaded["offsets"].tolist() == [0, 2, 2, 5]
    again = open_either(tmp_path / "file", "values")
    assert isinstance(again, RaggedRows)
    assert all(map(torch.equal, again[[2, 0, 1]], [rows[2], rows[0], rows[1]]))


def test_rows_of_one_length_are_read_as_older_versions_wrote_them(tmp_path: Path) -> None:
    values = torch.arange(24.0).view(2, 4, 3)
    save_file({"values": values}, tmp_path / "file")
    found = open_either(tmp_path / "file", "values")
    assert isinstance(found, TensorRows)
    assert torch.equal(found.part(0, 2), values)
    save_rows(tmp_path / "empty", {})
    assert open_either(tmp_path / "empty", "values") is None


@pytest.mark.parametrize("offsets", [[0, 2, 4], [1, 5], [0, 6, 5], [], [0.0, 5.0], [[0], [5]]])
def test_offsets_that_do_not_fit_are_refused(offsets: list[Any], tmp_path: Path) -> None:
    save_file({"values": torch.zeros(5, 3), "offsets": torch.tensor(offsets)}, tmp_path / "file")
    with pytest.raises(ValueError, match="offsets"):
        open_either(tmp_path / "file", "values")


def test_the_room_is_asked_for_before_bytes_are_written(tmp_path: Path) -> None:
    asked: list[int] = []
    written(NewFile(tmp_path / "file", "values", torch.bfloat16, asked.append), made([1, 2, 3]), at_once=1)
    assert asked == [6, 18, 36]


# --- images of different sizes: LLaVA with a Pixtral tower, which gives a token for each patch of an image ---------

SIZES = [(8, 8), (16, 8), (16, 24)]
PROJECTOR = Projector("model.multi_modal_projector", listed=True)


class AnySize(Pixels):
    """Pixels of images that are as large as they are."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = [torch.randn(3, *size, generator=generator) for size in SIZES]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, images: Sequence[int]) -> Images:
        return [self.images[image] for image in images]

    def once(self, images: Sequence[int]) -> Images:
        return self[images]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    config = llava_config("clip", text_config("llama"), vision_feature_layer=-1, vision_feature_select_strategy="full")
    config["vision_config"] = {
        "model_type": "pixtral",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    made: torch.nn.Module = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**config)).eval()
    return made


@pytest.fixture
def examples(data: Path) -> Examples:
    """Three rows about images of 1, 2 and 6 tokens, and one about the first two."""
    images = [(0,), (1,), (2,), (0, 1)]
    tokens = [height * width // 64 for height, width in SIZES]
    rows = [Example([3] * sum(tokens[one] for one in some) + [7, 8], [9, 2], some) for some in images]
    return Examples(read_split(data, "distill"), pack(rows), pad=0, pixels=AnySize())


def seen_of(model: torch.nn.Module, examples: Examples) -> RaggedRows:
    found = visual_features(model, examples, cast(Anatomy, type("", (), {"projector": PROJECTOR})), 2)
    assert isinstance(found, RaggedRows)
    return found


def test_each_image_has_its_own_number_of_visual_tokens(model: torch.nn.Module, examples: Examples) -> None:
    found, pixels = seen_of(model, examples), certain(examples.pixels)
    assert [len(one) for one in found[[0, 1, 2]]] == [1, 2, 6]
    with torch.no_grad():
        for number, one in enumerate(pixels[[0, 1, 2]]):
            torch.testing.assert_close(found[[number]][0], image_features(model, one[None], PROJECTOR)[0])


@pytest.mark.parametrize("cached", [True, False])
def test_their_logits_are_those_of_the_whole_model(model: torch.nn.Module, examples: Examples, cached: bool) -> None:
    """With the features of a file, and from pixels, in one batch; the reference is the model's own forward pass, row by
    row, as transformers calls it."""
    features = seen_of(model, examples) if cached else None
    batch = make_batch(examples, [3, 2, 0, 1], features)
    with torch.no_grad():
        found = answer_logits(model, batch, PROJECTOR)
        wanted = []
        for number in batch.examples:
            row = examples.rows[number]
            ids = torch.tensor([row.prompt + row.answer])
            sizes = torch.tensor([SIZES[image] for image in row.images])
            pixels = torch.zeros(len(sizes), 3, *sizes.amax(0).tolist())
            for place, image in enumerate(row.images):
                height, width = SIZES[image]
                pixels[place, :, :height, :width] = certain(examples.pixels)[[image]][0]
            logits = model(input_ids=ids, pixel_values=pixels, image_sizes=sizes).logits[0]
            wanted.append(logits[len(row.prompt) - 1 : -1])
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-4, atol=1e-5)


def test_batches_of_them_go_to_a_device(model: torch.nn.Module, examples: Examples) -> None:
    rows = replace(examples, goals=lambda chosen: [torch.zeros(len(chosen))])
    (batch,) = Batches(rows, [[1, 2]], seen_of(model, examples), torch.device("meta"))
    assert isinstance(batch.features, list)
    assert isinstance(batch.goals, list)
    assert [one.device.type for one in batch.features + batch.goals] == ["meta"] * 3
