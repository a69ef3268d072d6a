"""The harder sample: its data are deterministic and right by construction, and its model needs every block."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration

import lmmpress
from lmmpress.presets import preset
from lmmpress.sample import HARD_MODEL, MODEL, dataset, hard
from lmmpress.sample.advert import Advert, Row, advert_rng, draw_advert
from lmmpress.sample.copywriting import ANSWERS, CLASSES, characters
from lmmpress.sample.hard_questions import BOTH, HARD_QUESTIONS, NEITHER, PICTURE, TASKS, TITLE, ask_hard
from tools.sample_model.check import generated_accuracy, keep_first, parameters
from tools.sample_model.train import accuracies, all_query_outputs, encode

SMALL = {"score": 6, "distill": 12, "gate": 4, "test": 8}
DIGEST = "97dcccecb0d0ced7edd307dc8fdc4bfa4862593df2eb63b0ffdcad447100d1f6"  # of SMALL with seed 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset.build(tmp_path_factory.mktemp("hard") / "small", sizes=SMALL, make=hard.make)


@pytest.fixture(scope="module")
def asked() -> list[tuple[Advert, list[Row]]]:
    adverts = [draw_advert(advert_rng(1, "hard", i)) for i in range(8000)]
    return [(advert, ask_hard(advert, Random(i))) for i, advert in enumerate(adverts)]


def of_task(asked: list[tuple[Advert, list[Row]]], task: str) -> list[tuple[Advert, Row]]:
    return [(advert, row) for advert, rows in asked for row in rows if row.task == task]


def words(advert: Advert) -> dict[str, str]:
    """What is seen in the picture, by attribute."""
    seen = {name: ANSWERS[name][getattr(advert, name)] for name in ANSWERS if name != "content"}
    return seen | {"pictogram": CLASSES[advert.pictogram]}


def sold(advert: Advert) -> str | None:
    return None if advert.title.product is None else CLASSES[advert.title.product]


def named(row: Row, title: str, candidates: tuple[str, ...]) -> str:
    """The one candidate that stands in the question, outside the title."""
    rest = row.question.replace(f"“{title}”", "")
    (found,) = [word for word in candidates if word in rest]
    return found


# --- data


def test_digest_is_known(small: Path) -> None:
    assert dataset.digest(small) == DIGEST


def test_builds_are_equal_with_any_number_of_processes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FEW", 0)  # in processes this time
    assert dataset.digest(dataset.build(tmp_path / "again", sizes=SMALL, make=hard.make)) == DIGEST


def test_pictures_are_those_of_the_sample() -> None:
    for split in SMALL:
        (advert, _, image), (same, _, picture) = hard.make(0, split, 1), dataset.make(0, split, 1)
        assert advert == same
        assert image.tobytes() == picture.tobytes()


def test_seed_changes_rows() -> None:
    assert hard.make(0, "gate", 0)[1] != hard.make(1, "gate", 0)[1]


def test_cached_builds_once_beside_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path))
    monkeypatch.setattr(dataset, "SIZES", {"test": 1})
    first, easy = hard.cached(), dataset.cached()
    assert first != easy
    monkeypatch.setattr(dataset, "build", None)
    assert hard.cached() == first
    assert preset("sample-hard")["data"] == str(first)
    assert preset("sample")["data"] == str(easy)


def test_an_image_is_asked_every_task_or_half_of_them_in_turns() -> None:
    assert [row.task for row in hard.make(0, "gate", 0)[1]] == list(TASKS)
    turns = [[row.task for row in hard.make(0, "distill", index)[1]] for index in range(6)]
    assert {len(set(tasks)) for tasks in turns} == {3}
    assert set(Counter(task for tasks in turns for task in tasks).values()) == {3}


def test_rows_have_the_samples_columns(small: Path) -> None:
    rows = [json.loads(line) for line in (small / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(list(row) == ["file_name", "question", "answer", "task", "split"] for row in rows)
    wanted = {split: (3 if split == "distill" else 6) * n for split, n in SMALL.items()}
    assert Counter(row["split"] for row in rows) == wanted


def test_two_attributes_are_joined_and_every_pair_occurs(asked: list[tuple[Advert, list[Row]]]) -> None:
    for task, first, second in (
        ("color_and_style", "background_color", "style"),
        ("form_and_logo", "manifestation", "logo"),
    ):
        rows = of_task(asked, task)
        assert all(row.answer == words(advert)[first] + words(advert)[second] for advert, row in rows)
        assert {row.answer for _, row in rows} == {one + other for one in ANSWERS[first] for other in ANSWERS[second]}


def test_title_and_picture_are_both_named_and_every_pair_occurs(asked: list[tuple[Advert, list[Row]]]) -> None:
    rows = of_task(asked, "title_and_picture")
    assert all(row.answer == (sold(advert) or "") + words(advert)["pictogram"] for advert, row in rows)
    assert {row.answer for _, row in rows} == {one + other for one in ("", *CLASSES) for other in CLASSES}


def test_the_seller_of_a_named_class_is_title_picture_both_or_neither(
    asked: list[tuple[Advert, list[Row]]],
) -> None:
    counts: Counter[str] = Counter()
    by_class: dict[str, Counter[str]] = defaultdict(Counter)
    for advert, row in of_task(asked, "which_sells"):
        chosen = named(row, advert.title.text, CLASSES)
        sellers = chosen == words(advert)["pictogram"], chosen == sold(advert)
        assert row.answer == {(True, True): BOTH, (True, False): PICTURE, (False, True): TITLE}.get(sellers, NEITHER)
        counts[row.answer] += 1
        by_class[chosen][row.answer] += 1
    total = sum(counts.values())
    assert max(counts.values()) < 0.4 * total
    assert min(counts.values()) > 0.04 * total
    for one in by_class.values():  # the class that is named does not tell the answer
        assert all(abs(one[answer] / one.total() - counts[answer] / total) < 0.08 for answer in counts)


def test_a_condition_decides_what_is_answered(asked: list[tuple[Advert, list[Row]]]) -> None:
    rows = of_task(asked, "condition")
    gifts = [advert.title.gift is not None for advert, _ in rows]
    for gift, (advert, row) in zip(gifts, rows, strict=True):
        assert row.answer == words(advert)["background_color" if gift else "manifestation"]
    assert {row.answer for _, row in rows} == {*ANSWERS["background_color"], *ANSWERS["manifestation"]}
    assert 0.4 < sum(gifts) / len(gifts) < 0.6


def test_every_answer_of_one_kind_is_about_equally_frequent(asked: list[tuple[Advert, list[Row]]]) -> None:
    for task in ("color_and_style", "form_and_logo"):
        counts = Counter(row.answer for _, row in of_task(asked, task))
        assert max(counts.values()) < 2 * min(counts.values())


def test_questions_are_paraphrased_with_the_samples_characters(asked: list[tuple[Advert, list[Row]]]) -> None:
    known = set(characters())
    assert all(len(forms) >= 3 for forms in HARD_QUESTIONS.values())
    for advert, rows in asked[:300]:
        for row in rows:
            assert advert.title.text in row.question
            assert row.question.startswith("### Human: ")
            assert row.question.endswith("### Assistant:")
            assert set(row.question + row.answer) <= known


# --- model


def test_checksums_match_and_it_is_small() -> None:
    lines = (HARD_MODEL / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert {path.name for path in HARD_MODEL.iterdir()} - {"SHA256SUMS"} == set(sums)
    for name, digest in sums.items():
        assert hashlib.sha256((HARD_MODEL / name).read_bytes()).hexdigest() == digest
    assert sum((HARD_MODEL / name).stat().st_size for name in sums) < 10e6


def test_it_has_the_samples_eyes_and_tokenizer_and_fewer_blocks() -> None:
    models = [Blip2ForConditionalGeneration.from_pretrained(path) for path in (MODEL, HARD_MODEL)]
    easy, harder = [model.state_dict() for model in models]
    eyes = [name for name in easy if "vision_model" in name or "qformer" in name or "query_tokens" in name]
    assert eyes
    assert all(torch.equal(easy[name], harder[name]) for name in eyes)
    assert parameters(models[1])[1] < parameters(models[0])[1]
    assert (HARD_MODEL / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()


def test_plain_transformers_answers_test_rows_and_no_block_is_spare() -> None:
    model = Blip2ForConditionalGeneration.from_pretrained(HARD_MODEL, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(HARD_MODEL)
    pixels, _, questions = dataset.in_memory("test", 15, make=hard.make)
    rows = [row for of_image in questions for row in of_image]
    images = [Image.fromarray(pixels[i // len(TASKS)]) for i in range(len(rows))]
    generated = generated_accuracy(model, processor, [r.question for r in rows], images, [r.answer for r in rows])
    assert generated >= 0.85

    encoded, seen = encode(processor.tokenizer, rows), all_query_outputs(model, pixels)
    pad = processor.tokenizer.pad_token_id
    whole = accuracies(model, encoded, seen, pad, TASKS)
    assert whole["all"] == pytest.approx(generated, abs=1e-4)
    keep_first(model, model.config.text_config.num_hidden_layers - 1)  # what compares two things needs the last one too
    assert accuracies(model, encoded, seen, pad, TASKS)["which_sells"] < whole["which_sells"] - 0.2


# --- plan


def test_its_plan_cuts_every_axis() -> None:
    plan = lmmpress.as_plan("sample-hard", with_data=False)
    assert (plan.model, plan.data) == (str(HARD_MODEL), "sample-hard")
    assert [stage.axis for stage in plan.stages] == ["block", "ffn", "attention", "io"]
    blocks = [size["parameters_by_tower"]["language"] for size in lmmpress.plan_sizes(plan).as_list()]
    assert blocks[0] > 3 * blocks[-1]
