"""For ML engineers: make lmmpress's data of a data set of Hugging Face's `datasets`.

python examples/data_from_datasets.py SOURCE OUT --model MODEL [--question QUESTION]

SOURCE is a folder that `save_to_disk` wrote, or an imagefolder: images in folders of their classes, or with a
metadata.jsonl. Its columns: `image`, and `answer` or `label`; `question` (or --question for all rows) and `task` where
it has them. OUT is a new folder of the form of docs/data.md. Two rows of each split are then answered by MODEL, to see
that the data fit it; `lmmpress run` checks every row before its first step. It needs `pip install datasets`.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

import lmmpress

SPLITS = ("train", "validation", "test")
"""lmmpress scores and distils with train, decides with validation, and tests with test."""


def open_source(source: Path) -> datasets.DatasetDict:
    """The splits of a data set on this machine, whose images are the bytes of their files."""
    if (source / "dataset_dict.json").exists() or (source / "state.json").exists():
        found = datasets.load_from_disk(str(source))
    else:
        found = datasets.load_dataset("imagefolder", data_dir=str(source))
    splits = found if isinstance(found, datasets.DatasetDict) else datasets.DatasetDict(train=found)
    return splits.cast_column("image", datasets.Image(decode=False))


def answer_of(row: dict[str, Any], features: datasets.Features) -> str:
    """The column `answer`, or the name of the class."""
    if "answer" in row:
        return str(row["answer"])
    label = features["label"]
    return str(label.int2str(row["label"]) if isinstance(label, datasets.ClassLabel) else row["label"])


def split_by_image(image: bytes) -> str:
    """A split for data without splits: 80 % train, 10 % validation, 10 % test. An image is in one split alone."""
    part = hashlib.sha256(image).digest()[0] % 10
    return "train" if part < 8 else SPLITS[part - 7]


def rows_of(source: datasets.DatasetDict, out: Path, question: str | None) -> Iterator[dict[str, str]]:
    """Write the images, and give the rows that belong to them."""
    for name, split in source.items():
        for row in split:
            image = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
            file_name = f"images/{hashlib.sha256(image).hexdigest()}"  # an image of many rows is one file
            (out / file_name).write_bytes(image)
            yield {
                "file_name": file_name,
                "question": row.get("question") or question or sys.exit("no column question: give --question"),
                "answer": answer_of(row, split.features),
                "task": str(row.get("task") or "all"),
                "split": name if len(source) > 1 else split_by_image(image),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="the checkpoint that the data are for")
    parser.add_argument("--question", help="the question of rows without one")
    asked = parser.parse_args()

    (asked.out / "images").mkdir(parents=True)
    counts = dict.fromkeys(SPLITS, 0)
    with (asked.out / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for row in rows_of(open_source(asked.source), asked.out, asked.question):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            counts[row["split"]] = counts.get(row["split"], 0) + 1
    print(f"{asked.out}: {', '.join(f'{count} rows of {name}' for name, count in counts.items())}")

    for split in [name for name, count in counts.items() if count and asked.model]:
        for answer in lmmpress.predict(asked.model, asked.out, split=split, rows=2):
            print(f"{split}: {answer.question!r}: {answer.text!r}, wanted {answer.wanted!r}")


if __name__ == "__main__":
    try:
        main()
    except lmmpress.UserError as error:
        sys.exit(f"error: {error}")
