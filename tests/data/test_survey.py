"""A data set is looked at as a whole: all that is in it, and every fault by row."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lmmpress
from lmmpress import Description, UserError, inspect_data
from lmmpress.data import read_split
from lmmpress.data.describe import spread
from lmmpress.data.description import Fault, Spread

Row = dict[str, Any]


def picture(path: Path, shade: int, side: int = 8, kind: str = "PNG") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, 8), (shade, 9, 9)).save(path, kind)
    return path.name


def row(number: int, **changes: Any) -> Row:
    """A good row about a picture of its own."""
    values = {"file_name": f"{number}.png", "question": f"q{number}", "answer": "ab"[number % 2], "split": "test"}
    return {name: value for name, value in (values | changes).items() if value is not None}


def write(folder: Path, rows: Sequence[object], name: str = "metadata.jsonl") -> Path:
    """A data set with these lines, and a picture of its own for each good name."""
    folder.mkdir(exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    for number in range(len(rows)):
        picture(folder / f"{number}.png", number)
    return folder


def test_it_counts_rows_and_measures_texts_and_pictures(tmp_path: Path) -> None:
    rows = [
        row(0, split="train", answer="red", task="colour"),
        row(1, split="train", answer="red", task="colour"),
        row(2, split="train", answer="a long one", task="caption"),
        row(3, split="test", answer="blue", task="colour"),
    ]
    folder = write(tmp_path / "d", rows)
    picture(folder / "2.png", 2, side=30, kind="JPEG")
    found = inspect_data(folder)
    assert (found.form, found.count, found.divided) == ("imagefolder", 4, 0)
    assert found.rows == {"test": {"colour": 1}, "train": {"colour": 2, "caption": 1}}
    assert found.answers == Spread(3, 10, 10)
    assert found.by_task == {"caption": Spread(10, 10, 10), "colour": Spread(3, 4, 4)}
    assert found.questions == Spread(2, 2, 2)
    assert found.pictures is not None
    assert found.pictures.formats == {"PNG": 3, "JPEG": 1}
    assert (found.pictures.smallest, found.pictures.median, found.pictures.largest) == ((8, 8), (8, 8), (30, 8))
    assert [(one.task, one.split, one.rows, one.answers, one.most_frequent, one.share) for one in found.labels] == [
        ("caption", "train", 1, 1, "a long one", 1.0),
        ("colour", "test", 1, 1, "blue", 1.0),
        ("colour", "train", 2, 1, "red", 1.0),
    ]
    assert not found.faults


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
def test_percentiles_are_those_of_the_sorted_lengths(lengths: list[int]) -> None:
    counts = {length: lengths.count(length) for length in lengths}
    found, ordered = spread(counts), sorted(lengths)
    assert found is not None
    assert found.median == statistics.median_low(lengths)
    assert found.p99 == ordered[-(-len(ordered) * 99 // 100) - 1]
    assert found.longest == max(lengths)


BAD = [
    ("not json", "not JSON"),
    ('{"question": "q", "question": "r"}', "the key 'question' stands twice"),
    ("[]", "a row is a JSON object"),
    (row(3, answer=None), "answer is missing"),
    (row(4, question=7), "question is 7, which is no text"),
    (row(5, file_name="gone.png"), "image 'gone.png' is missing"),
    (row(6, file_name="../out.png"), "points outside of the data set"),
    (row(7, file_name="torn.png"), "image 'torn.png' cannot be read: it is damaged"),
    (row(8, file_name="text.png"), "image 'text.png' cannot be read: it is none of JPEG"),
    (row(9, file_name=None), "the row has no image, other rows of its split have one"),
]


def spoilt(folder: Path) -> Path:
    """Each kind of fault in a row of its own, between two good rows."""
    write(folder, [line for number, (line, _) in enumerate(BAD) for line in (row(20 + number), line)])
    for number in range(len(BAD)):
        picture(folder / f"{20 + number}.png", 20 + number)
    whole = (folder / "20.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[:-30])
    (folder / "text.png").write_text("no picture", "utf-8")
    return folder


def test_every_fault_is_found_with_its_row(tmp_path: Path) -> None:
    found = inspect_data(spoilt(tmp_path / "d"))
    assert found.count == len(BAD)
    places = [fault.place for fault in found.faults]
    assert sorted(places, key=lambda place: int(place.split()[-1])) == [
        f"metadata.jsonl, line {2 * number}" for number in range(1, len(BAD) + 1)
    ]
    for number, (_, message) in enumerate(BAD, start=1):
        (why,) = [fault.why for fault in found.faults if fault.place == f"metadata.jsonl, line {2 * number}"]
        assert message in why


def test_a_mended_data_set_has_no_fault(tmp_path: Path) -> None:
    """What was found is looked at again as soon as it has changed."""
    folder = write(tmp_path / "d", [row(0), row(1, file_name="late.png"), row(2, file_name="torn.png")])
    (folder / "torn.png").write_bytes(b"torn")
    assert len(inspect_data(folder).faults) == 2
    picture(folder / "late.png", 7)
    picture(folder / "torn.png", 8)
    assert inspect_data(folder).faults == ()
    (folder / "0.png").write_bytes(b"torn")
    assert [fault.place for fault in inspect_data(folder).faults] == ["metadata.jsonl, line 1"]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("metadata.csv", "question,answer\nq,a\nq,a,more\nq,a\n", "metadata.csv, line 3"),
        ("rows.json", '[{"question": "q", "answer": "a"}, 3, {"question": "q", "answer": "a"}]', "rows.json, row 2"),
        ("rows.jsonl", '{"question": "q", "answer": "a"}\n{\n{"question": "q", "answer": "a"}\n', "rows.jsonl, line 2"),
    ],
)
def test_other_forms_are_read_on_after_a_fault(tmp_path: Path, name: str, text: str, place: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    found = inspect_data(tmp_path)
    assert found.count == 2
    assert [fault.place for fault in found.faults] == [place]


@pytest.mark.parametrize("text", ['[{"question": "q"', '[{"question": "q", "answer": "a"} {}]'])
def test_a_file_that_cannot_be_read_as_a_whole_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"rows\.json"):
        inspect_data(tmp_path)


def test_a_folder_of_no_form_and_one_without_rows_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no data set"):
        inspect_data(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("", "utf-8")
    with pytest.raises(UserError, match="holds no rows"):
        inspect_data(tmp_path)


# --- warnings ---


def warned(found: Description, words: str) -> str:
    (warning,) = [warning for warning in found.warnings if words in warning]
    return warning


def test_two_forms_in_one_folder_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [row(0), row(1)])
    assert not inspect_data(folder).unread
    (folder / "more.json").write_text("[]", "utf-8")
    found = inspect_data(folder)
    assert found.unread == ("JSON files",)
    assert "JSON files" in warned(found, "another form")


def test_a_picture_in_two_splits_is_named_with_both_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [row(0, split="train"), row(1), row(2, split="train"), row(3)])
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    found = inspect_data(folder)
    (shared,) = found.shared_pictures
    assert (shared.splits, shared.count, shared.examples) == (("test", "train"), 1, (("1.png", "0.png"),))
    assert found.repeated_pictures == {"train": 1}
    assert "1.png and 0.png" in warned(found, "share images")
    assert not found.shared_rows


def test_a_row_in_two_splits_is_named_with_both_places(tmp_path: Path) -> None:
    text = [row(0, file_name=None, question="same", split=split) for split in ("train", "test", "test")]
    found = inspect_data(write(tmp_path / "d", [*text, row(1, file_name=None)]))
    (shared,) = found.shared_rows
    assert shared.examples == (("metadata.jsonl, line 2", "metadata.jsonl, line 1"),)
    assert found.repeated_rows == {"test": 1}
    assert "line 2 and metadata.jsonl, line 1" in warned(found, "share rows")


def test_one_answer_in_all_rows_of_a_task_is_a_warning(tmp_path: Path) -> None:
    found = inspect_data(
        write(tmp_path / "d", [row(0, task="t"), row(2, task="t"), row(1, task="u"), row(4, task="u")])
    )
    assert "all 2 rows of task 't' in split 'test' have one answer, 'a'" in warned(found, "one answer")


@pytest.mark.parametrize(
    ("rows", "empty"),
    [
        ([row(0, split="train"), row(1, answer=None)], set()),
        ([row(0, split="train"), row(1, file_name="gone.png")], {"test"}),
    ],
)
def test_an_empty_split_is_a_warning(tmp_path: Path, rows: list[Row], empty: set[str]) -> None:
    found = inspect_data(write(tmp_path / "d", rows))
    assert {warning.split("'")[1] for warning in found.warnings if "is empty" in warning} == empty


def test_too_few_rows_to_divide_leave_splits_empty(tmp_path: Path) -> None:
    found = inspect_data(write(tmp_path / "d", [row(0, split=None), row(1, split=None)]))
    empty = {warning.split("'")[1] for warning in found.warnings if "is empty" in warning}
    assert empty | found.rows.keys() == {"score", "distill", "gate", "test"}
    assert len(empty) == 2


def test_a_file_without_rows_is_an_empty_split(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"question": "q", "answer": "a"}\n', "utf-8")
    (tmp_path / "validation.jsonl").write_text("", "utf-8")
    assert "split 'validation' is empty" in warned(inspect_data(tmp_path), "is empty")


# --- splits, columns ---


def test_rows_without_a_split_are_divided_as_a_run_would(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [row(number, split=None) for number in range(40)])
    found = inspect_data(folder)
    assert found.divided == 40
    assert {split: sum(tasks.values()) for split, tasks in found.rows.items()} == {
        split: len(read_split(folder, split).rows) for split in ("score", "distill", "gate", "test")
    }
    assert list(inspect_data(folder, splits=["gate"]).rows) == ["gate"]


def test_only_the_named_splits_are_looked_at(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [row(0), row(1, split="train", file_name="gone.png"), row(2, split="dev")])
    assert inspect_data(folder, splits=["test", "dev"]).faults == ()
    assert [fault.place for fault in inspect_data(folder, splits=["train"]).faults] == ["metadata.jsonl, line 2"]
    with pytest.raises(UserError, match="there is no split 'tets'; did you mean 'test'"):
        inspect_data(folder, splits=["tets"])


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [{"prompt": "q", "label": "a"}, {"prompt": "r"}], "rows.jsonl")
    found = inspect_data(folder, columns={"question": "prompt", "answer": "label", "task": {"text": "caption"}})
    assert found.by_task == {"caption": Spread(1, 1, 1)}
    assert [(fault.place, fault.why.split(";")[0]) for fault in found.faults] == [
        ("rows.jsonl, line 2", "answer (column 'label') is missing")
    ]
    unlabelled = inspect_data(folder, columns={"question": "prompt", "answer": "label"}, unlabelled=True)
    assert (unlabelled.unlabelled, unlabelled.faults) == (1, ())
    wrong: list[tuple[Mapping[str, Any], str]] = [
        ({"qestion": "a"}, "unknown column"),
        ({"question": 7}, "question"),
    ]
    for columns, message in wrong:
        with pytest.raises(UserError, match=message):
            inspect_data(folder, columns=columns)


# --- how it shows ---


def test_at_most_some_hundreds_of_faults_are_printed_and_all_are_in_the_json(tmp_path: Path) -> None:
    found = inspect_data(write(tmp_path / "d", [row(0), *["{"] * 1000]))
    assert len(found.as_dict()["faults"]) == found.as_dict()["counts"]["faults"] == 1000
    assert json.loads(json.dumps(found.as_dict()))["faults"][999]["place"] == "metadata.jsonl, line 1001"
    assert any(part == "and 800 more; --json lists all" for part in found.shown())
    assert repr(found) == f"<imagefolder {tmp_path / 'd'}: 1 rows, 1,000 faults>"


def test_texts_of_the_data_are_text_in_a_notebook(tmp_path: Path) -> None:
    forged = "<script>alert(1)</script>"
    found = inspect_data(write(tmp_path / "d", [row(0, answer=forged, task=forged), row(1, file_name=forged)]))
    assert "<script>" not in found._repr_html_()
    assert isinstance(found.faults[0], Fault)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[Any] = []
    inspect_data(write(tmp_path / "d", [row(0), row(1)]), progress=told.append)
    assert {one.label for one in told if isinstance(one, lmmpress.Work)} >= {"look at pictures"}
