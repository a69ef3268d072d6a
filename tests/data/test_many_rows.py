"""What is kept of a split's rows and images is little, and says the same as the rows themselves."""

import json
import os
import tracemalloc
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmmpress.data import Row, Split, index, index_making, leaks, read_split, splitting
from lmmpress.data.draw import drawn
from lmmpress.data.facts import facts_of
from lmmpress.data.images import Images, distinct_images, images_of
from lmmpress.data.index import open_index
from lmmpress.data.leaks import check_leak
from lmmpress.data.rows import check_unchanged
from lmmpress.data.split_pictures import Pictures
from lmmpress.errors import UserError
from lmmpress.settings.distillation import Draw
from lmmpress.settings.reading import Reading

NAMES = [(), ("a",), ("b", "a"), ("a", "a", "c"), ("d",), ("c", "d", "b")]


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are held at once, as if there were many."""
    for module in (index, index_making, leaks, splitting):
        monkeypatch.setattr(module, "_AT_ONCE", 4)


@pytest.fixture
def split(tmp_path: Path, few_at_once: None) -> Split:
    """Rows about the pictures of `NAMES`, each a file whose content is its name; they all have one."""
    for name in "abcd":
        (tmp_path / name).write_text(name, "utf-8")
    rows = [{"question": "q", "answer": "a", "split": "test", "images": list(names)} for names in NAMES[1:]]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return read_split(tmp_path, "test")


def told(images: Images) -> list[tuple[str, ...]]:
    """The names of each row's images."""
    ends = np.cumsum(images.counts)
    return [
        tuple(images.names[number] for number in images.numbers[end - count : end].tolist())
        for end, count in zip(ends.tolist(), images.counts.tolist(), strict=True)
    ]


def test_images_say_which_names_each_row_has(split: Split) -> None:
    assert told(split.images) == NAMES[1:]
    assert list(split.images.names) == ["a", "b", "c", "d"]
    assert (len(split.images.names), split.images.names[-1], list(split.images.names[1:3])) == (4, "d", ["b", "c"])


def test_images_of_other_rows_of_a_split_are_those_of_these_rows(split: Split) -> None:
    for rows in (split.rows[::-1], split.rows[2:], split.rows[:0], tuple(split.rows)[1:], (Row("q", "a", "t"),)):
        assert told(replace(split, rows=rows).images) == [row.pictures for row in rows]
    assert list(replace(split, rows=split.rows[2:]).images.names) == ["a", "c", "d", "b"]


@given(st.lists(st.sampled_from(NAMES), max_size=8))
def test_images_need_no_index(shown: list[tuple[str, ...]]) -> None:
    images = Split("test", Path(), [Row("q", "a", "t", names) for names in shown], "d").images
    assert told(images) == shown
    assert list(images.names) == list(dict.fromkeys(name for names in shown for name in names))


def test_distinct_images_count_once(split: Split) -> None:
    first, last = replace(split, rows=split.rows[:2]), replace(split, rows=split.rows[2:])
    assert distinct_images([split.images, first.images]) == distinct_images([first.images, last.images]) == 4
    assert distinct_images([first.images, images_of([Row("q", "a", "t", ("b", "z"))])]) == 3
    assert distinct_images([]) == 0


def test_pictures_have_their_digests_in_order(split: Split) -> None:
    assert isinstance(split.pictures, Pictures)
    assert list(split.pictures.items()) == [(name, split.pictures[name]) for name in "abcd"]
    assert len(dict(split.pictures.items())) == len(split.pictures) == 4
    with pytest.raises(KeyError):
        split.pictures["z"]


LIMITS = st.integers(1, 15)
SHOWN = st.lists(st.integers(-1, 5), min_size=1, max_size=15)


@given(SHOWN, LIMITS, st.integers(0, 9), st.sampled_from(["even", "random"]))
def test_a_draw_of_pictures_is_as_it_always_was(pictures: list[int], limit: int, seed: int, draw: Draw) -> None:
    """Written plainly, as in the first version: the digests of rows that runs have drawn stay."""
    ids = np.arange(100, 100 + len(pictures))
    groups: dict[object, list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture if picture >= 0 else (place,), []).append(100 + place)
    members = list(groups.values())
    if limit >= len(ids):
        expected = ids.tolist()
    elif draw == "even":
        count = -(-limit * len(members) // len(ids))
        expected = [number for at in range(count) for number in members[at * len(members) // count]][:limit]
    else:
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(members))
        expected = sorted([number for at in order for number in members[at]][:limit])
    tasks = np.zeros(len(ids), np.int32)
    assert drawn(ids, limit, draw, seed, np.array(pictures, np.int32), tasks).tolist() == expected


@given(st.lists(st.sampled_from([0, 1, 4]), min_size=2, max_size=20), LIMITS, st.integers(0, 9))
def test_a_draw_by_task_takes_shares_to_one_row(tasks: list[int], limit: int, seed: int) -> None:
    ids = np.arange(len(tasks))
    found = drawn(ids, limit, "by_task", seed, np.full(len(tasks), -1, np.int32), np.array(tasks, np.int32)).tolist()
    assert found == sorted(set(found))
    assert len(found) == min(limit, len(tasks))
    of_task = Counter(tasks[place] for place in found)
    assert all(abs(of_task[task] - len(found) * tasks.count(task) / len(tasks)) < 1 for task in tasks)


def pictured(folder: Path, rows: int) -> Path:
    """Rows without a split, each with a picture of its own that its file holds."""
    folder.mkdir()
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content(number)}"}}
            asked = {"role": "user", "content": [image, {"type": "text", "text": f"Which number is {number}?"}]}
            file.write(json.dumps({"messages": [asked, {"role": "assistant", "content": "this"}]}) + "\n")
    return folder


def content(number: int) -> str:
    return b64encode(str(number).encode()).decode()


def of_text(folder: Path, rows: int) -> Path:
    """Rows of texts for the parts of a run."""
    folder.mkdir()
    roles = ("score", "distill", "gate", "test")
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {"question": f"Which number is {number}?", "answer": "this", "task": "t", "split": roles[number % 4]}
            file.write(json.dumps(row) + "\n")
    return folder


def used(folder: Path) -> int:
    """The most bytes that are taken while the splits of a run are read, and checked against each other."""
    tracemalloc.start()
    try:
        open_index(folder, Reading())
        splits = {name: read_split(folder, name) for name in ("score", "distill", "gate", "test")}
        read_split(folder, "distill", limit=10, draw="random")
        check_leak(splits["distill"], splits["gate"])
        facts_of(splits["gate"])
        distinct_images(split.images for split in splits.values())
        for split in splits.values():
            check_unchanged(split)
            assert all(row.question for row in split.rows)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("write", [pictured, of_text])
def test_more_rows_take_few_bytes_each(tmp_path: Path, few_at_once: None, write: Callable[[Path, int], Path]) -> None:
    least, most = (used(write(tmp_path / str(rows), rows)) for rows in (500, 2500))
    assert (most - least) / 2000 < 100


def test_pictures_that_change_while_their_rows_are_in_use_are_refused(split: Split) -> None:
    """They are read again and again, and what is made of them is named by the bytes of the start."""
    picture = split.folder / "b"
    os.utime(picture, (1, 1))
    assert split.read("b") == b"b", "the same bytes at another time"
    picture.write_text("other", "utf-8")
    with pytest.raises(UserError, match="has changed since the rows were read"):
        split.read("b")
    assert read_split(split.folder, "test").read("b") == b"other"
