"""The same rows and pictures, written in every form that a data set may have."""

import base64
import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]


def rows_of(folder: Path) -> Rows:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]


def rewritten(imagefolder: Path, folder: Path, write: Callable[[Rows, Path], None]) -> Path:
    """A copy of the pictures in another folder, under other names, with the rows in another form."""
    folder.mkdir()
    rows = rows_of(imagefolder)
    for row in rows:
        name = row["file_name"].replace("images/", "pictures-")
        shutil.copyfile(imagefolder / row["file_name"], folder / name)
        row["file_name"] = name
    write(rows, folder)
    return folder


def as_jsonl(rows: Rows, folder: Path) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def as_csv(rows: Rows, folder: Path) -> None:
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def llava(row: dict[str, Any]) -> dict[str, Any]:
    """The row as an entry of LLaVA's JSON."""
    said = [{"from": "human", "value": f"<image>\n{row['question']}"}, {"from": "gpt", "value": row["answer"]}]
    return {"image": row["file_name"], "conversations": said, "task": row["task"], "split": row["split"]}


def as_llava(rows: Rows, folder: Path) -> None:
    (folder / "llava.json").write_text(json.dumps([llava(row) for row in rows], indent=2), "utf-8")


def as_one_line_of_llava(rows: Rows, folder: Path) -> None:
    (folder / "llava.json").write_text(json.dumps([llava(row) for row in rows], ensure_ascii=False), "utf-8")


def as_sharegpt(rows: Rows, folder: Path) -> None:
    for row in rows:
        row["conversations"] = [
            {"from": "user", "value": row.pop("question")},
            {"from": "assistant", "value": row.pop("answer")},
        ]
        row["images"] = [row.pop("file_name")]
    (folder / "sharegpt.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def openai(row: dict[str, Any], url: str) -> dict[str, Any]:
    asked = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": row["question"]}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["answer"]}]
    return {"messages": messages, "task": row["task"], "split": row["split"]}


def as_openai(rows: Rows, folder: Path) -> None:
    written = "".join(json.dumps(openai(row, row["file_name"])) + "\n" for row in rows)
    (folder / "messages.jsonl").write_text(written, "utf-8")


def as_openai_with_pictures_inside(rows: Rows, folder: Path) -> None:
    lines = []
    for row in rows:
        raw = base64.b64encode((folder / row["file_name"]).read_bytes()).decode()
        lines.append(json.dumps(openai(row, f"data:image/png;base64,{raw}")) + "\n")
    (folder / "messages.jsonl").write_text("".join(lines), "utf-8")
    for picture in folder.glob("*.png"):
        picture.unlink()


def as_parquet(rows: Rows, folder: Path) -> None:
    """Hugging Face Parquet, with the bytes of the pictures in it, a file for each split."""
    for split in ("train", "test"):
        chosen = [row for row in rows if row["split"] == split]
        table = {name: [row[name] for row in chosen] for name in ("question", "answer", "task")}
        table["image"] = [{"bytes": (folder / row["file_name"]).read_bytes(), "path": None} for row in chosen]
        pq.write_table(pa.table(table), folder / f"{split}-00000-of-00001.parquet")
    without_pictures(folder)


def as_metadata_parquet(rows: Rows, folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")


def as_datasets(rows: Rows, folder: Path) -> None:
    """A DatasetDict that `save_to_disk` wrote."""
    pictures = datasets.Image()
    found = {
        split: datasets.Dataset.from_list(
            [
                {
                    "question": row["question"],
                    "answer": row["answer"],
                    "task": row["task"],
                    "image": {"bytes": (folder / row["file_name"]).read_bytes(), "path": None},
                }
                for row in rows
                if row["split"] == split
            ]
        ).cast_column("image", pictures)
        for split in ("train", "test")
    }
    datasets.DatasetDict(found).save_to_disk(folder)
    without_pictures(folder)


def as_webdataset(rows: Rows, folder: Path) -> None:
    for split in ("train", "test"):
        with tarfile.open(folder / f"{split}-000000.tar", "w", encoding="utf-8") as tar:
            for number, row in enumerate(row for row in rows if row["split"] == split):
                told = {name: row[name] for name in ("question", "answer", "task")}
                for ending, raw in (
                    ("png", (folder / row["file_name"]).read_bytes()),
                    ("json", json.dumps(told).encode()),
                ):
                    member = tarfile.TarInfo(f"{number:06d}.{ending}")
                    member.size = len(raw)
                    tar.addfile(member, io.BytesIO(raw))
    without_pictures(folder)


def without_pictures(folder: Path) -> None:
    for picture in folder.glob("*.png"):
        picture.unlink()


FORMS = [
    as_parquet,
    as_metadata_parquet,
    as_datasets,
    as_webdataset,
    as_jsonl,
    as_csv,
    as_llava,
    as_one_line_of_llava,
    as_sharegpt,
    as_openai,
    as_openai_with_pictures_inside,
]
