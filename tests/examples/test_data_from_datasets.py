"""The example for data of Hugging Face's `datasets`: what it writes is data for a run."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.data import COLORS
from support.examples import run_example

from lmmpress.data import open_picture, read_split, usual_splits

datasets = pytest.importorskip("datasets")


def rows_in(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]


def picture(number: int) -> tuple[str, Image.Image]:
    """A flat picture that no other number has, and its colour's name."""
    name = list(COLORS)[number % len(COLORS)]
    return name, Image.new("RGB", (16, 16), tuple(max(0, value - number) for value in COLORS[name]))


def test_a_saved_data_set_becomes_data_that_a_model_answers(taught: Path, tmp_path: Path) -> None:
    """Splits, questions, tasks and answers as they are; a picture of two rows is one file."""
    made: dict[str, Any] = {}
    numbers = {"train": range(6), "validation": range(6, 9), "test": range(9, 12)}
    for split, chosen in numbers.items():
        rows = []
        for number in chosen:
            name, image = picture(number)
            for question, task in (("图片的背景颜色是什么?", "plain"), ("标题:新品包邮 背景颜色?", "title")):
                rows.append({"image": image, "question": question, "answer": name, "task": task})
        features = datasets.Features(
            {"image": datasets.Image()} | {key: datasets.Value("string") for key in ("question", "answer", "task")}
        )
        made[split] = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    out = tmp_path / "out"
    said = run_example("data_from_datasets.py", tmp_path / "saved", out, "--model", taught)
    assert f"{out}: 12 rows of train, 6 rows of validation, 6 rows of test" in said
    assert Counter(line.split(":")[0] for line in said.splitlines() if "wanted" in line) == {
        split: 2 for split in numbers
    }
    assert usual_splits(out) == {"score": "train", "distill": "train", "gate": "validation", "test": "test"}
    for split, chosen in numbers.items():
        found = read_split(out, split)
        assert [row.answer for row in found.rows] == [picture(number)[0] for number in chosen for _ in range(2)]
        assert [row.task for row in found.rows] == ["plain", "title"] * len(chosen)
        assert [open_picture(out / str(row.picture)).getpixel((0, 0)) for row in found.rows[::2]] == [
            picture(number)[1].getpixel((0, 0)) for number in chosen
        ]
    assert len(list((out / "images").iterdir())) == 12


def test_an_imagefolder_of_classes_is_split_by_picture(tmp_path: Path) -> None:
    source, out = tmp_path / "classes", tmp_path / "out"
    for number in range(60):
        name, image = picture(number)
        (source / name).mkdir(parents=True, exist_ok=True)
        image.save(source / name / f"{number}.png")
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    refused = run_example("data_from_datasets.py", source, tmp_path / "refused", code=1, environment=cache)
    assert refused.splitlines()[-1] == "no column question: give --question"
    run_example("data_from_datasets.py", source, out, "--question", "背景颜色?", environment=cache)
    rows = rows_in(out)
    assert Counter(row["answer"] for row in rows) == dict.fromkeys(COLORS, 15)
    assert {row["question"] for row in rows} == {"背景颜色?"}
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["file_name"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    counts = Counter(row["split"] for row in rows)
    assert set(counts) == {"train", "validation", "test"}
    assert counts["train"] > 30
