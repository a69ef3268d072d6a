"""The index of a data set is this machine's own: what is wrong with it, or cannot be kept in it, is told or mended."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.data import write_data
from support.forms import as_openai_with_pictures_inside, rewritten

from lmmpress.data import open_image, read_split
from lmmpress.data.index import _opened
from lmmpress.data.rows import _split
from lmmpress.errors import UserError

ROW = '{"question": "q", "answer": "a", "split": "test"}'


def test_a_file_of_rows_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/rows-\xff.jsonl"
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(ROW)
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    with pytest.raises(UserError, match=r"the name 'rows-\\udcff.jsonl' is not UTF-8; rename the file"):
        read_split(tmp_path, "test")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def foreign(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE rows (x)")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "no database": lambda file: file.write_bytes(b"0" * 9000),
    "cut": cut,
    "another database": foreign,
    "no pictures": lambda file: file.with_suffix(".pictures").unlink(),
    "pictures cut": lambda file: cut(file.with_suffix(".pictures")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_index_that_is_not_whole_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = rewritten(write_data(tmp_path / "plain", {"test": 3}), tmp_path / "d", as_openai_with_pictures_inside)
    split = read_split(folder, "test")
    assert split.index is not None
    split.index.close()
    damage(split.index.file)
    _opened.cache_clear()  # as in the next process
    _split.cache_clear()
    again = read_split(folder, "test")
    assert again.digest == split.digest
    assert open_image(again, again.rows[-1].pictures[0]).size


def test_an_index_that_is_damaged_while_it_is_open_is_told_in_one_line(tmp_path: Path) -> None:
    split = read_split(write_data(tmp_path / "d", {"test": 3}), "test")
    assert split.index is not None
    split.index.close()
    split.index.file.write_bytes(b"0" * 9000)
    with pytest.raises(UserError, match=r"the index .* cannot be read: file is not a database; remove it"):
        list(split.rows)
