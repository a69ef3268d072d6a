"""A clean copy of a data set holds its rows without a fault: the same texts and bytes, in the same order."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmmpress import UserError, inspect_data
from lmmpress.data import read_split
from lmmpress.settings.reading import Reading

SPLITS = ("score", "distill", "gate", "test")
PICTURES = ("a.png", "b.jpg", "ß &?.png", "same as a.png", "../d/a.png")

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """A row of any kind, about one or two pictures."""
    row: dict[str, Any] = {}
    if draw(st.booleans()):
        said = draw(st.lists(words, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
        who = ("user", "assistant") * 3
        messages = [{"role": role, "content": text} for role, text in zip(who, said, strict=False)]
        if draw(st.booleans()):
            messages.insert(0, {"role": "system", "content": draw(words)})
        if draw(st.booleans()):
            messages[-2]["content"] = f"<image>\n{messages[-2]['content']}"
        row["messages"] = messages
    else:
        row["question"] = draw(words)
        row["answer"] = draw(words | st.lists(words, min_size=1, max_size=3))
        if draw(st.booleans()):
            row["system"] = draw(words)
    if draw(st.booleans()):
        row["task"] = draw(words)
    seen = draw(st.lists(st.sampled_from(PICTURES), min_size=1, max_size=2))
    return row | ({"images": seen} if len(seen) > 1 else {"file_name": seen[0]})


FAULTY = st.sampled_from(['{"question"', "[]", '{"question": "q"}', '{"question": "q", "answer": "a", "image": "x"}'])
TORN = '{"question": "q", "answer": "a", "image": "torn.png"}'


def write(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    Image.new("RGB", (9, 8), (1, 2, 3)).save(folder / "a.png")
    Image.new("RGB", (5, 8), (9, 2, 3)).save(folder / "b.jpg", "JPEG")
    Image.new("L", (9, 8), 7).save(folder / "ß &?.png")
    (folder / "same as a.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "torn.png").write_bytes((folder / "a.png").read_bytes()[:45])
    return folder


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for split in SPLITS:
        try:
            found[split] = read_split(folder, split).digest
        except UserError as error:
            assert "has no rows" in str(error)  # noqa: PT017 (there are too few rows to divide)
    return found


@settings(max_examples=40)
@given(
    lines=st.lists(
        st.tuples(st.sampled_from([None, *SPLITS]), rows()) | FAULTY | st.just(TORN), min_size=1, max_size=12
    )
)
def test_the_digest_of_a_clean_copy_is_that_of_the_rows_without_a_fault(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any]
) -> None:
    around = tmp_path_factory.mktemp("fix")
    good = [json.dumps(one[1] | ({"split": one[0]} if one[0] else {})) for one in lines if isinstance(one, tuple)]
    every = [line if isinstance(line, str) else good[number] for number, line in numbered(lines)]
    source, clean = write(around / "source" / "d", every), around / "clean"
    if not good:
        with pytest.raises(UserError, match="every row has a fault"):
            inspect_data(source, fix=clean)
        return
    found = inspect_data(source, fix=clean)
    assert (found.count, len(found.faults)) == (len(good), len(lines) - len(good))
    again = inspect_data(clean)
    assert (again.form, again.faults, again.rows, again.unread) == ("imagefolder", (), found.rows, ())
    assert digests(clean) == digests(write(around / "whole" / "d", good))


def numbered(lines: list[Any]) -> list[tuple[int, Any]]:
    """Each line with the number of good ones before it."""
    count, found = 0, []
    for line in lines:
        found.append((count, line))
        count += isinstance(line, tuple)
    return found


def test_each_content_is_copied_once_byte_by_byte_under_a_safe_name(tmp_path: Path) -> None:
    lines = [json.dumps({"question": "q", "answer": "a", "image": name, "split": "test"}) for name in PICTURES]
    source, clean = write(tmp_path / "d", lines), tmp_path / "clean"
    fixed = inspect_data(source, fix=clean).fixed
    assert fixed is not None
    assert (fixed.rows, fixed.pictures) == (5, 3)
    copies = [path for path in clean.rglob("*") if path.is_file() and path.name != "metadata.jsonl"]
    assert {path.read_bytes() for path in copies} == {(source / name).read_bytes() for name in PICTURES}
    assert {path.suffix for path in copies} == {".png", ".jpg"}
    assert all(path.name.isascii() and not path.is_symlink() for path in copies)


def test_rows_without_an_answer_stay_so(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "q"}]
    source = write(tmp_path / "d", [json.dumps({"messages": said, "image": "a.png", "split": "test"})])
    inspect_data(source, unlabelled=True, fix=tmp_path / "clean")
    (row,) = read_split(tmp_path / "clean", "test", reading=Reading(unlabelled=True)).rows
    assert (row.question, row.answers) == ("q", ())


LINE = json.dumps({"question": "q", "answer": "a", "image": "a.png", "split": "test"})


@pytest.mark.parametrize(
    ("target", "message"),
    [("full", "exists; name a new folder"), ("file", "exists"), ("d/clean", "lies in the data set"), ("d", "lies in")],
)
def test_a_target_that_cannot_be_used_is_refused_before_anything_is_read(
    tmp_path: Path, target: str, message: str
) -> None:
    source = write(tmp_path / "d", ["{"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        inspect_data(source, fix=tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_address_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="writes to a folder of this machine"):
        inspect_data(write(tmp_path / "d", [LINE]), fix="s3://bucket/clean")


def test_an_empty_folder_is_a_target(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    inspect_data(write(tmp_path / "d", [LINE]), fix=tmp_path / "clean")
    assert (tmp_path / "clean" / "metadata.jsonl").is_file()


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "d", [LINE])
    monkeypatch.setattr("lmmpress.data.fix.LONGEST_FILE", 10)
    with pytest.raises(UserError, match=r"write it split by split \(--split\)"):
        inspect_data(source, fix=tmp_path / "clean")
    assert os.listdir(tmp_path) == ["d"]
