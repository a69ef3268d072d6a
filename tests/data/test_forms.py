"""Rows are the same whatever form they are written in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data import write_data
from support.forms import FORMS, Rows, as_jsonl, as_llava, rewritten, rows_of

from lmmpress.data import Row, Split, open_image, read_split, usual_splits
from lmmpress.data.index import _opened
from lmmpress.errors import UserError
from lmmpress.settings.reading import Reading, Text


@pytest.fixture(scope="module")
def imagefolder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("forms") / "imagefolder", {"train": 5, "test": 3})


@pytest.mark.parametrize("write", FORMS)
def test_the_digest_of_rows_is_the_same_in_every_form(
    imagefolder: Path, tmp_path: Path, write: Callable[[Rows, Path], None]
) -> None:
    folder = rewritten(imagefolder, tmp_path / "d", write)
    for name in ("train", "test"):
        here, there = read_split(folder, name), read_split(imagefolder, name)
        assert here.digest == there.digest
        assert [texts(row) for row in here.rows] == [texts(row) for row in there.rows]
        assert pixels(here) == pixels(there)


def texts(row: Row) -> tuple[str, ...]:
    return row.question, row.answer, row.task


def pixels(split: Split) -> list[bytes]:
    return [open_image(split, name).tobytes() for row in split.rows for name in row.pictures]


@pytest.mark.parametrize("change", ["question", "answer", "task", "picture", "order", "another right answer"])
def test_the_digest_changes_with_the_content(imagefolder: Path, tmp_path: Path, change: str) -> None:
    def write(rows: Rows, folder: Path) -> None:
        if change == "order":
            rows.reverse()
        elif change == "picture":
            (folder / rows[0]["file_name"]).write_bytes((folder / rows[2]["file_name"]).read_bytes())
        elif change == "another right answer":
            rows[0]["answer"] = [rows[0]["answer"], "another"]
        else:
            rows[0][change] += "!"
        as_jsonl(rows, folder)

    changed = rewritten(imagefolder, tmp_path / "d", write)
    assert read_split(changed, "train").digest != read_split(imagefolder, "train").digest


def write_json(folder: Path, rows: object, name: str = "rows.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(rows if isinstance(rows, str) else json.dumps(rows), "utf-8")
    return folder


def chat(*said: tuple[str, str]) -> dict[str, Any]:
    return {"split": "test", "conversations": [{"from": who, "value": what} for who, what in said]}


def asked(url: str) -> dict[str, Any]:
    """A message of OpenAI's with one picture."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "a?"}]
    return {"role": "user", "content": parts}


def test_a_picture_of_no_bytes_is_told_with_its_row(tmp_path: Path) -> None:
    row = {"split": "test", "messages": [asked("data:image/png;base64,"), {"role": "assistant", "content": "b"}]}
    split = read_split(write_json(tmp_path / "d", [row]), "test")
    with pytest.raises(UserError, match=r"cannot be read as an image: .*rows\.json, row 1"):
        open_image(split, split.rows[0].pictures[0])


def test_earlier_turns_and_the_system_text_are_kept(tmp_path: Path) -> None:
    row = chat(("system", "Be short."), ("human", "a?"), ("gpt", "b"), ("human", "c?"), ("gpt", "d"))
    (read,) = read_split(write_json(tmp_path / "d", [row]), "test").rows
    assert (read.system, read.asked, read.answer) == ("Be short.", ("a?", "c?"), "d")
    assert [(turn.question, turn.answer) for turn in read.before] == [("a?", "b")]
    assert read.chat


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (chat(("gpt", "b")), 'conversations, message 1 is by "gpt"; here a question by'),
        (chat(("human", "a"), ("human", "b")), 'message 2 is by "human"; here an answer by'),
        (chat(("human", "a")), "the last question has no answer"),
        (chat(("system", "a")), "the conversation has no question"),
        (chat(("human", "a"), ("tool", "b")), 'message 2 is by "tool"'),
        (chat(("human", " "), ("gpt", "b")), "conversations, message 1 is empty"),
        ({"split": "test", "conversations": []}, r"conversations is \[\]; it is a list of 1 to"),
        ({"split": "test", "conversations": "a"}, 'conversations is "a"; it is a list'),
        ({"split": "test", "conversations": ["a"]}, "message 1 is \"a\"; it is an object with 'from' and 'value'"),
        ({"split": "test", "messages": [{"role": "user", "content": [{"type": "video"}]}]}, 'part 1 is "video"'),
        (chat(("human", "a"), ("gpt", "b")) | {"image": "https://h/a.png"}, "is an address; fetch it"),
        (
            {"split": "test", "messages": [asked("a\0.png"), {"role": "assistant", "content": "b"}]},
            "holds the character 0, which no path has",
        ),
        (chat(("human", "a"), ("gpt", "b")) | {"image": {"path": "a.png"}}, "it is the path of one image"),
        (chat(("human", "a"), ("gpt", "b")) | {"image": "a.png", "images": ["b.png"]}, "pictures in two columns"),
        ({"split": "test", "question": "q"}, "answer is missing; a row has question and answer"),
    ],
)
def test_the_error_for_a_bad_conversation_names_its_row(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = chat(("human", "a"), ("gpt", "b"))
    with pytest.raises(UserError, match=rf"rows\.json, row 2: .*{message}"):
        read_split(write_json(tmp_path / "d", [good, row]), "test")


GOOD = '{"question": "q", "answer": "a"}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[{GOOD}", "the file ends in its list of rows"),
        (f"[{GOOD} {GOOD}]", "',' is due before row 2, not '{'"),
        ("3", r"'\[' is due before row 1"),
        ('[{"question": "q", "question": "r"}]', "row 1: the key 'question' stands twice"),
        ("[1]", "row 1: a row is a JSON object"),
        ("[{]", "row 1: not JSON"),
        ("[] x", "there is text after the list"),
        ("[" * 100_000, "row 1: not JSON"),
        ("[]", "holds no rows"),
    ],
)
def test_the_error_for_a_bad_list_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_split(write_json(tmp_path / "d", text), "test")


@given(
    values=st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers() | st.none(), max_size=3)),
    indent=st.sampled_from([None, 1]),
    escaped=st.booleans(),
)
def test_a_list_read_as_a_stream_is_that_of_the_json_module(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]], indent: int | None, escaped: bool
) -> None:
    from lmmpress.data.containers.json_files import JSON_FILES

    folder = tmp_path_factory.mktemp("list")
    text = json.dumps(values, indent=indent, ensure_ascii=escaped).encode("utf-8", "replace")
    (folder / "a.json").write_bytes(text)
    assert [record.values for record in JSON_FILES.records(folder, ["a.json"])] == json.loads(text)


# --- columns, answers, splits ---


def test_columns_rename_and_give_one_text_for_all_rows(tmp_path: Path) -> None:
    folder = write_json(tmp_path / "d", [{"prompt": "q", "label": "a", "question": "ignored", "part": "test"}])
    reading = Reading(columns={"question": "prompt", "answer": "label", "split": "part", "task": Text(text="caption")})
    (row,) = read_split(folder, "test", reading=reading).rows
    assert texts(row) == ("q", "a", "caption")


def test_the_error_for_a_renamed_column_names_it(tmp_path: Path) -> None:
    folder = write_json(tmp_path / "d", [{"question": "q"}])
    with pytest.raises(UserError, match=r"answer \(column 'label'\) is missing"):
        read_split(folder, "test", reading=Reading(columns={"answer": "label"}))


@pytest.mark.parametrize("answers", [["a", "b"], [{"answer": "a"}, {"answer": "b"}]])
def test_a_row_may_have_several_right_answers(tmp_path: Path, answers: list[Any]) -> None:
    (row,) = read_split(
        write_json(tmp_path / "d", [{"question": "q", "answers": answers, "split": "test"}]), "test"
    ).rows
    assert row.answers == ("a", "b")


def test_rows_without_a_task_have_one_task(tmp_path: Path) -> None:
    (row,) = read_split(write_json(tmp_path / "d", [{"question": "q", "answer": "a", "split": "test"}]), "test").rows
    assert row.task == "default"


def test_only_rows_that_a_teacher_labels_may_lack_an_answer(tmp_path: Path) -> None:
    folder = write_json(tmp_path / "d", [{"question": "q", "split": "test"}, chat(("human", "r"))])
    rows = read_split(folder, "test", reading=Reading(unlabelled=True)).rows
    assert [(row.question, row.answers) for row in rows] == [("q", ()), ("r", ())]


SPLITS = ("score", "distill", "gate", "test")


def unsplit(imagefolder: Path, folder: Path) -> Path:
    """The rows without their splits; the first picture is there a second time under another name."""

    def write(rows: Rows, folder: Path) -> None:
        for row in rows:
            del row["split"]
        shutil.copyfile(folder / rows[0]["file_name"], folder / "again.png")
        as_jsonl([*rows, rows[0] | {"file_name": "again.png"}], folder)

    return rewritten(imagefolder, folder, write)


def test_rows_without_a_split_are_divided_so_that_no_picture_is_on_both_sides(
    imagefolder: Path, tmp_path: Path
) -> None:
    folder = unsplit(imagefolder, tmp_path / "d")
    parts = {name: read_split(folder, name) for name in SPLITS}
    assert sum(len(part.rows) for part in parts.values()) == len(rows_of(folder))
    pictures = [set(part.pictures.values()) for part in parts.values()]
    assert sum(map(len, pictures)) == len(set().union(*pictures)) == 8


def test_a_training_split_is_divided_if_there_is_none_for_the_gate(imagefolder: Path) -> None:
    names = usual_splits(imagefolder)
    assert list(names.values()) == ["train[score]", "train[distill]", "train[gate]", "test"]
    parts = [read_split(imagefolder, names[role]) for role in SPLITS[:3]]
    assert sum(len(part.rows) for part in parts) == len(read_split(imagefolder, "train").rows)
    assert sum(len(part.pictures) for part in parts) == len(read_split(imagefolder, "train").pictures)
    with pytest.raises(UserError, match="has too few rows for a part 'test'"):
        read_split(imagefolder, "train[test]")


def test_the_division_depends_on_the_seed_and_the_shares_alone(imagefolder: Path, tmp_path: Path) -> None:
    one, other = (unsplit(imagefolder, tmp_path / name) for name in "ab")
    assert read_split(one, "distill").digest == read_split(other, "distill").digest
    seeds = {read_split(one, "distill", reading=Reading(seed=seed)).digest for seed in range(5)}
    assert len(seeds) > 1
    half = Reading.model_validate({"shares": {"score": 0.1, "distill": 0.1, "gate": 0.1, "test": 0.7}})
    assert len(read_split(one, "test", reading=half).rows) > len(read_split(one, "test").rows)


# --- faulty rows ---


def test_faulty_rows_are_skipped_up_to_a_limit(imagefolder: Path, tmp_path: Path) -> None:
    good = {"question": "q", "answer": "a", "split": "test"}
    faulty = [good | {"answer": 3}, good | {"file_name": "none.png"}, good | {"file_name": "cut.png"}]
    folder = write_json(tmp_path / "d", [good, faulty[0], good, *faulty[1:], good])
    (folder / "cut.png").write_bytes((imagefolder / "images/0000.png").read_bytes()[:60])
    split = read_split(folder, "test", reading=Reading(errors="skip", skipped_at_most=0.5))
    assert [row.line for row in split.rows] == [1, 3, 6]
    assert split.index is not None
    assert [place for place, _ in split.index.skipped] == [f"rows.json, row {number}" for number in (2, 4, 5)]
    with pytest.raises(UserError, match=r"3 of 6 rows are faulty, more than skipped_at_most 0\.4 allows: rows"):
        read_split(folder, "test", reading=Reading(errors="skip", skipped_at_most=0.4))


def test_a_skipped_row_comes_back_when_its_picture_is_mended(imagefolder: Path, tmp_path: Path) -> None:
    folder = rewritten(imagefolder, tmp_path / "d", as_jsonl)
    name = rows_of(folder)[-1]["file_name"]
    whole = (folder / name).read_bytes()
    skipping = Reading(errors="skip", skipped_at_most=0.5)
    digest = read_split(folder, "test", reading=skipping).digest
    (folder / name).unlink()
    (folder / "metadata.jsonl").touch()  # as when the data set is written anew
    assert len(read_split(folder, "test", reading=skipping).rows) == 4
    (folder / name).write_bytes(whole)
    _opened.cache_clear()  # as in the next process
    assert read_split(folder, "test", reading=skipping).digest == digest


def test_of_two_forms_in_one_folder_one_is_taken_and_said(imagefolder: Path, tmp_path: Path) -> None:
    def write(rows: Rows, folder: Path) -> None:
        as_jsonl(rows, folder)
        as_llava(rows, folder)

    said: list[Any] = []
    from lmmpress.progress import listening

    with listening(said.append):
        read_split(rewritten(imagefolder, tmp_path / "d", write), "test")
    assert any("read from metadata.jsonl, as imagefolder" in getattr(one, "words", "") for one in said)


# --- the index ---


def test_a_picture_that_has_changed_changes_the_digest_in_the_next_process(imagefolder: Path, tmp_path: Path) -> None:
    from lmmpress.data.rows import _split

    folder = rewritten(imagefolder, tmp_path / "d", as_jsonl)
    before = read_split(folder, "test").digest
    changed = next(iter(read_split(folder, "test").pictures))
    shutil.copyfile(imagefolder / "images/0000.png", folder / changed)
    _split.cache_clear()
    assert read_split(folder, "test").digest != before
    shutil.copyfile(imagefolder / changed.replace("pictures-", "images/"), folder / changed)
    _split.cache_clear()
    assert read_split(folder, "test").digest == before
