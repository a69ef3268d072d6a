"""The sample: its data are deterministic and without shortcuts, and its model has the documented accuracy and speed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from lmmpress.sample import MODEL, dataset
from lmmpress.sample.advert import Advert, advert_rng, answer, ask, draw_advert
from lmmpress.sample.copywriting import ANSWERS, CLASSES, PRODUCTS, TASKS, Title, characters
from lmmpress.sample.drawing import LOGOS, PICTOGRAMS
from tools.sample_model.check import generated_accuracy, keep_first, parameters
from tools.sample_model.train import accuracies, all_query_outputs, encode

SMALL = {"score": 6, "distill": 12, "gate": 4, "test": 8}
DIGEST = "3e66d43a0741e5fa6c91cb04d2fdc28c37c9892beaff6910306ccf492046d3dd"  # of SMALL with seed 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset.build(tmp_path_factory.mktemp("sample") / "small", sizes=SMALL)


@pytest.fixture(scope="module")
def rows(small: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (small / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def adverts() -> list[Advert]:
    return [draw_advert(advert_rng(1, "independence", i)) for i in range(6000)]


@pytest.fixture
def model() -> Blip2ForConditionalGeneration:
    return Blip2ForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()


# --- data


def test_digest_is_known(small: Path) -> None:
    assert dataset.digest(small) == DIGEST


def test_builds_are_equal_with_any_number_of_processes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FEW", 0)  # in processes this time
    assert dataset.digest(dataset.build(tmp_path / "again", sizes=SMALL)) == DIGEST


def test_seed_changes_data(small: Path, tmp_path: Path) -> None:
    assert dataset.digest(dataset.build(tmp_path / "other", seed=1, sizes=SMALL)) != DIGEST


def test_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(dataset, "render", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        dataset.build(tmp_path / "broken", sizes=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_build_refuses_an_existing_folder(small: Path) -> None:
    with pytest.raises(FileExistsError):
        dataset.build(small)


def test_cached_builds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path))
    monkeypatch.setattr(dataset, "SIZES", {"test": 1})
    first = dataset.cached()
    monkeypatch.setattr(dataset, "build", None)
    assert dataset.cached() == first


def test_an_image_is_asked_every_task_or_content_and_two_others(rows: list[dict[str, str]]) -> None:
    assert all(list(row) == ["file_name", "question", "answer", "task", "split"] for row in rows)
    asked = Counter((row["file_name"], row["task"]) for row in rows)
    assert set(asked.values()) == {1}
    wanted = {split: (3 if split == "distill" else 5) * n for split, n in SMALL.items()}
    assert Counter(row["split"] for row in rows) == wanted
    assert all(row["answer"] in ANSWERS[row["task"]] for row in rows)


def test_splits_share_no_picture(small: Path, rows: list[dict[str, str]]) -> None:
    names = {row["file_name"] for row in rows}
    pixels = {Image.open(small / name).tobytes() for name in names}
    assert len(pixels) == len(names) == sum(SMALL.values())


def test_attributes_are_independent(adverts: list[Advert]) -> None:
    table = {
        "background_color": [a.background_color for a in adverts],
        "manifestation": [a.manifestation for a in adverts],
        "pictogram": [a.pictogram for a in adverts],
        "logo": [a.logo for a in adverts],
        "style": [a.style for a in adverts],
        "product": [-1 if a.title.product is None else a.title.product for a in adverts],
        "generic": [int(a.title.product is None) for a in adverts],
        "gift": [-1 if a.title.gift is None else a.title.gift for a in adverts],
    }
    explained = [{"product", "gift"}, {"product", "generic"}, {"gift", "generic"}]  # by the title's kind
    for one, other in itertools.combinations(table, 2):
        if {one, other} in explained:
            continue
        _, x = np.unique(table[one], return_inverse=True)
        _, y = np.unique(table[other], return_inverse=True)
        counts = np.zeros((x.max() + 1, y.max() + 1))
        np.add.at(counts, (x, y), 1)
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
        chi = ((counts - expected) ** 2 / expected).sum()
        freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
        assert chi < freedom + 5 * np.sqrt(2 * freedom), (one, other)


def test_every_answer_is_about_equally_frequent(adverts: list[Advert]) -> None:
    for task in TASKS:
        counts = Counter(answer(advert, task) for advert in adverts)
        assert set(counts) == set(ANSWERS[task])
        assert max(counts.values()) < 1.25 * min(counts.values())


def test_a_third_of_titles_leaves_the_content_to_the_picture(adverts: list[Advert]) -> None:
    generic = [advert for advert in adverts if advert.title.product is None]
    assert 0.30 < len(generic) / len(adverts) < 0.38
    assert all(answer(advert, "content") == CLASSES[advert.pictogram] for advert in generic)
    assert 0.4 < sum(advert.title.gift is not None for advert in generic) / len(generic) < 0.8


def test_titles_name_what_they_sell_and_gifts_of_another_class(adverts: list[Advert]) -> None:
    titles: list[Title] = [advert.title for advert in adverts]
    for title in titles:
        for index in (title.product, title.gift):
            assert index is None or any(word in title.text for word in PRODUCTS[index])
        assert title.gift is None or title.gift != title.product
    sold = [title for title in titles if title.product is not None]
    assert sum(title.gift is not None for title in sold) / len(sold) > 0.4


def test_questions_are_paraphrased_around_the_title(adverts: list[Advert]) -> None:
    forms: dict[str, set[str]] = {task: set() for task in TASKS}
    for i, advert in enumerate(adverts[:200]):
        for row in ask(advert, advert_rng(0, "questions", i)):
            assert advert.title.text in row.question
            assert row.question.startswith("### Human: ")
            assert row.question.endswith("### Assistant:")
            forms[row.task].add(row.question.replace(advert.title.text, ""))
    assert all(len(questions) >= 3 for questions in forms.values())


def test_masks_and_words_correspond() -> None:
    assert len(LOGOS) == len(ANSWERS["logo"])
    assert len(PICTOGRAMS) == len(PRODUCTS) == len(CLASSES)


# --- model


def test_checksums_match() -> None:
    lines = (MODEL / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {path.name for path in MODEL.iterdir()} - {"SHA256SUMS"}
    assert files == set(sums)
    for name, digest in sums.items():
        assert hashlib.sha256((MODEL / name).read_bytes()).hexdigest() == digest
    assert sum((MODEL / name).stat().st_size for name in files) < 16 * 2**20


def test_language_tower_dominates(model: Blip2ForConditionalGeneration) -> None:
    total, tower = parameters(model)
    assert 6e6 <= total <= 8e6
    assert tower >= 0.75 * total
    assert model.config.text_config.num_hidden_layers >= 12
    assert json.loads((MODEL / "config.json").read_text("utf-8"))["dtype"] == "float16"


def test_tokenizer_knows_every_character() -> None:
    tokenizer = AutoProcessor.from_pretrained(MODEL).tokenizer
    text = characters()
    tokens = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens) == text


def language_work(model: Blip2ForConditionalGeneration, call: Callable[[], object]) -> float:
    """The share of a call's multiplications by weights that are not of the image side; times depend on the machine."""
    eyes = [model.vision_model, model.qformer, model.language_projection]
    seeing = {module for part in eyes for module in part.modules()}
    done = {True: 0, False: 0}

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        done[module in seeing] += output.numel() * module.get_parameter("weight")[0].numel()

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return done[False] / sum(done.values())


def test_plain_transformers_answers_test_rows(model: Blip2ForConditionalGeneration) -> None:
    processor = AutoProcessor.from_pretrained(MODEL)
    pixels, _, asked = dataset.in_memory("test", 20)
    rows = [row for five in asked for row in five]
    images = [Image.fromarray(pixels[i // 5]) for i in range(len(rows))]
    questions, answers = [row.question for row in rows], [row.answer for row in rows]
    generated = generated_accuracy(model, processor, questions, images, answers)
    assert generated >= 0.9

    encoded, seen = encode(processor.tokenizer, rows), all_query_outputs(model, pixels)
    forced = accuracies(model, encoded, seen, processor.tokenizer.pad_token_id)
    assert forced["all"] == pytest.approx(generated, abs=1e-4)

    inputs = processor(images=images[:32], text=questions[:32], padding=True, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"][0], torch.tensor(pixels[0]).permute(2, 0, 1) / 127.5 - 1)
    assert language_work(model, lambda: model.generate(**inputs)) >= 0.8

    keep_first(model, 4)
    assert accuracies(model, encoded, seen, processor.tokenizer.pad_token_id)["all"] < forced["all"] - 0.1


def test_the_processes_that_draw_import_nothing_from_the_current_directory(tmp_path: Path) -> None:
    hostile, program = tmp_path / "hostile", tmp_path / "program.py"
    hostile.mkdir()
    for name in ("multiprocessing", "numpy", "PIL"):
        (hostile / f"{name}.py").write_text("open('ran', 'w').close()\n", "utf-8")
    program.write_text(
        "from lmmpress.sample import dataset\n"
        "if __name__ == '__main__':\n"
        "    dataset.FEW = 0\n"
        "    assert list(dataset.make_many([('test', 0)], 0, ''))\n",
        "utf-8",
    )
    others = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, str(program)], cwd=hostile, env=others, check=True, timeout=120)
    assert not (hostile / "ran").exists()
