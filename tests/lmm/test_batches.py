"""Batches are made by threads ahead of their use, from what is on disk, and are the same as those made one by one."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.certain import certain, one_tensor

from lmmpress.data import read_split
from lmmpress.lmm import pixels as pixels_module
from lmmpress.lmm.batches import Batch, Batches, grouped, grouped_rows, make_batch
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Examples, encode, read_examples, with_rows
from lmmpress.lmm.forward import visual_features
from lmmpress.lmm.portions import Portions
from lmmpress.lmm.processor import load_processor


@pytest.fixture
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint("llama")


@pytest.fixture
def examples(checkpoint: Path, data: Path) -> Examples:
    return encode(read_split(data, "distill"), load_processor(checkpoint), read_checkpoint(checkpoint).config)


def same(one: Batch, other: Batch) -> bool:
    tensors: list[list[Any]] = [[*vars(batch).values(), *batch.inputs.values()] for batch in (one, other)]
    pairs = [pair for pair in zip(*tensors, strict=True) if isinstance(pair[0], torch.Tensor)]
    return one.examples == other.examples and len(pairs) > 5 and all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("cached", [False, True])
def test_batches_are_those_made_one_by_one(checkpoint: Path, examples: Examples, cached: bool) -> None:
    features = visual_features(load_model(checkpoint), examples, read_checkpoint(checkpoint), 3) if cached else None
    order = grouped(examples, 5, torch.Generator().manual_seed(0))
    plain = [make_batch(examples, chosen, features) for chosen in order]
    assert [batch.pixels is None for batch in plain] == [cached] * len(plain)
    found = Batches(examples, order, features, torch.device("cpu"))
    assert all(map(same, found, plain))
    assert all(map(same, found[1::2], plain[1::2]))
    assert same(found[2], plain[2])
    assert len(found) == len(plain) > 3


def test_what_the_teacher_makes_of_them_is_read_by_the_threads_ahead(examples: Examples) -> None:
    """So the device does not wait for the disk."""
    readers = set()

    def goals(chosen: Sequence[int]) -> torch.Tensor:
        readers.add(threading.get_ident())
        return torch.from_numpy(examples.numbers_of(chosen))

    order = grouped(examples, 5, torch.Generator().manual_seed(0))
    for batch in Batches(replace(examples, goals=goals), order, device=torch.device("cpu")):
        assert torch.equal(one_tensor(batch.goals), batch.number), "they are those of the batch's own examples"
    assert readers
    assert threading.get_ident() not in readers


def test_other_rows_have_other_goals(examples: Examples) -> None:
    taught = replace(examples, goals=lambda chosen: torch.zeros(len(chosen)))
    assert with_rows(taught, examples.rows, "other").goals is None


def test_an_order_can_be_gone_over_again_and_cut(examples: Examples) -> None:
    order = grouped(examples, 5, torch.Generator().manual_seed(0))
    known = list(order)
    assert list(order) == known
    assert list(order[1::2]) == known[1::2]
    assert order[-1] == known[-1]


def test_some_examples_are_in_the_order_of_all(examples: Examples) -> None:
    every = [row for batch in grouped(examples, 4) for row in batch]
    some = [5, 0, 3, 0, 7, 2]
    chosen = [row for row in every if row in some]
    assert list(grouped_rows(examples, 2, some)) == [chosen[:2], chosen[2:4], chosen[4:]]
    assert list(grouped_rows(examples, 2, [])) == []


def test_portions_are_of_one_list_of_rows_after_the_other_at_any_size() -> None:
    made: list[list[int]] = []

    def make(rows: list[int]) -> list[int]:
        made.append(rows)
        return rows

    portions = Portions([[0, 1, 2], [3, 4], [5, 6, 7, 8]], make, lambda rows: [10 * row for row in rows])
    assert list(portions.of(0, 2)) == [[0, 10], [20]]
    assert list(portions.of(1, 2)) == [[30, 40]]
    assert sorted(made)[:3] == [[0, 1], [2], [3, 4]]
    assert all(made.count(rows) == 1 for rows in made), "what was made ahead is taken"
    assert list(portions.of(1, 1)) == [[30], [40]]
    assert list(portions.of(2, 1)) == [[50], [60], [70], [80]]
    assert list(portions.of(0, 9)) == [[0, 10, 20]]
    assert list(portions[1:]) == [[30, 40], [50, 60, 70, 80]] == [portions[1], portions[2]]


def test_threads_are_only_a_little_ahead(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches there are, few of them are in memory."""
    asked: list[list[int]] = []
    really = make_batch

    def noted(examples: Examples, chosen: list[int], features: Any) -> Batch:
        asked.append(chosen)
        return really(examples, chosen, features)

    monkeypatch.setattr("lmmpress.lmm.batches.make_batch", noted)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    order = [[number % len(examples.rows)] for number in range(100)]
    batches = iter(Batches(examples, order))
    for number in range(10):
        next(batches)
        assert len(asked) <= number + 1 + 2
    del batches
    assert len(asked) < 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_lengths": lambda lengths: lengths + 1}, "lengths"),
        ({"answer_lengths": lambda lengths: lengths[1:]}, "lengths"),
        ({"prompts": lambda prompts: prompts.view(1, -1)}, "lists of numbers"),
        ({"images": lambda images: images.float()}, "lists of numbers"),
        ({name: lambda values: values[:-1] for name in ("prompt_lengths", "answer_lengths", "images")}, "lengths"),
    ],
)
def test_a_file_of_other_tensors_is_refused(
    examples: Examples, tmp_path: Path, changes: dict[str, Callable[[torch.Tensor], torch.Tensor]], message: str
) -> None:
    examples.save(tmp_path / "file")
    tensors = load_file(tmp_path / "file")
    changed = tensors | {name: change(tensors[name]).contiguous() for name, change in changes.items()}
    save_file(changed, tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        read_examples(tmp_path / "file", examples.split, None, {})


def test_examples_of_other_rows_are_refused(examples: Examples, tmp_path: Path) -> None:
    examples.save(tmp_path / "file")
    fewer = replace(examples.split, rows=examples.split.rows[1:])
    with pytest.raises(ValueError, match="rows, not"):
        read_examples(tmp_path / "file", fewer, None, {})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are decoded."""
    names: list[str] = []
    really, lock = pixels_module.open_image, threading.Lock()

    def noted(split: Any, name: str) -> Any:
        with lock:
            names.append(name)
        return really(split, name)

    monkeypatch.setattr(pixels_module, "open_image", noted)
    return names


def with_room(checkpoint: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch, kept: int) -> pixels_module.Pixels:
    """The pixels of examples, of which so many are kept."""
    processor, config = load_processor(checkpoint), read_checkpoint(checkpoint).config
    size = one_tensor(pixels_module.Pixels(examples.split, processor, config)[[0]]).numel() * 4
    monkeypatch.setattr(pixels_module, "_KEPT", kept * size)
    return pixels_module.Pixels(examples.split, processor, config)


def test_pictures_are_decoded_once_as_long_as_there_is_room(
    checkpoint: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    pixels = with_room(checkpoint, examples, monkeypatch, 2)
    opened.clear()
    first = one_tensor(pixels[[0, 1, 2]])
    assert torch.equal(one_tensor(pixels[[2, 1, 0]]), first.flip(0))
    assert len(opened) == 4
    assert opened[-1] == examples.split.images.names[2]


def test_a_picture_of_several_rows_is_decoded_once_for_a_batch(
    checkpoint: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    pixels = with_room(checkpoint, examples, monkeypatch, 0)
    opened.clear()
    found = one_tensor(pixels[[1, 0, 1, 1]])
    assert opened == [examples.split.images.names[1], examples.split.images.names[0]]
    assert torch.equal(found, torch.stack([pixels[[image]][0] for image in (1, 0, 1, 1)]))


def test_pictures_whose_features_are_kept_are_not_kept_too(checkpoint: Path, examples: Examples) -> None:
    features = visual_features(load_model(checkpoint), examples, read_checkpoint(checkpoint), 3)
    assert features is not None
    assert len(features) == len(certain(examples.pixels)) > 0
    assert not certain(examples.pixels)._kept


def test_a_picture_that_two_threads_decode_takes_room_once(
    checkpoint: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    pixels, both = with_room(checkpoint, examples, monkeypatch, 2), threading.Barrier(2)
    really = pixels_module.open_image

    def together(split: Any, name: str) -> Any:
        both.wait(timeout=60)
        return really(split, name)

    monkeypatch.setattr(pixels_module, "open_image", together)
    with ThreadPoolExecutor(2) as pool:
        assert torch.equal(*map(one_tensor, pool.map(pixels.__getitem__, ([0], [0]))))
    monkeypatch.setattr(pixels_module, "open_image", really)
    opened.clear()
    for _ in range(2):
        pixels[[0, 1]]
    assert opened == [examples.split.images.names[1]]
