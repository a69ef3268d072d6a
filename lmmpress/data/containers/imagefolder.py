"""Hugging Face's imagefolder: pictures, and their rows in metadata.jsonl, metadata.csv or metadata.parquet."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmmpress.data.containers.container import Container, Record
from lmmpress.data.containers.parquet import read_parquet
from lmmpress.data.text import LONGEST_LINE, read_lines
from lmmpress.errors import UserError

METADATA = "metadata.jsonl"
_NAMES = (METADATA, "metadata.csv", "metadata.parquet")
_LONGEST_KEY = 200  # characters of a key that is shown


def _files(names: Sequence[str]) -> list[str]:
    return [next(name for name in _NAMES if name in names)] if any(name in names for name in _NAMES) else []


def _records(folder: Path, files: Sequence[str]) -> Iterator[Record]:
    (name,) = files
    if name == METADATA:
        return json_lines(folder, name)
    if name.endswith(".csv"):
        return csv_rows(folder, name)
    return read_parquet(folder, name)


def json_lines(folder: Path, name: str) -> Iterator[Record]:
    """The records of a file with one JSON object on each line; a line with anything else is a record with a fault."""
    for number, line in read_lines(folder, name):
        if line.strip():
            place = f"{name}, line {number}"
            values, fault = _mapping(line)
            yield Record(values, place, number, fault=fault)


def csv_rows(folder: Path, name: str) -> Iterator[Record]:
    """The records of a CSV file, whose first line has the columns. An empty cell is no value."""
    lines = read_lines(folder, name)
    last = 0

    def texts() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line

    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(texts(), strict=True)
    try:
        head = next(reader, None)
        if head is None:
            return
        if twice := [column for column, count in Counter(head).items() if count > 1]:
            raise UserError(f"{folder / name}, line 1: the column {twice[0][:_LONGEST_KEY]!r} stands twice; rename one")
        begun = last + 1
        for cells in reader:
            if cells:
                values: dict[str, object] = {key: cell for key, cell in zip(head, cells, strict=False) if cell != ""}
                fault = (
                    f"the row has {len(cells)} cells, the first line names {len(head)} columns; put a cell with a "
                    "comma or a line break in quotes"
                    if len(cells) != len(head)
                    else ""
                )
                yield Record({} if fault else values, f"{name}, line {begun}", begun, fault=fault)
            begun = last + 1
    except csv.Error as error:
        raise UserError(f"{folder / name}, line {last}: not CSV: {error}; quotes in a cell are doubled") from None


class TwiceError(ValueError):
    """A JSON object has a key twice."""


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build a JSON object; if a key has two values, Python's json would silently keep the last one."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise TwiceError(repr(Counter(key for key, _ in pairs).most_common(1)[0][0][:_LONGEST_KEY]))
    return unique


DECODER = json.JSONDecoder(object_pairs_hook=_once_each)
"""A decoder of JSON in which no key may stand twice."""


def reason(error: Exception) -> str:
    """What is wrong with a text that is not JSON, in a few words."""
    if isinstance(error, TwiceError):
        return f"the key {error} stands twice in the row; keep one"
    why = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
    return f"not JSON: {why}"


def _mapping(line: str) -> tuple[dict[str, object], str]:
    """The object on a line, or what is wrong with the line."""
    try:
        value = DECODER.decode(line)
    except TwiceError as error:
        return {}, reason(error)
    except (ValueError, RecursionError) as error:
        return {}, f"{reason(error)}; a line holds one JSON object and nothing else"
    return (value, "") if isinstance(value, dict) else ({}, "a row is a JSON object, each on a line of its own")


IMAGEFOLDER = Container("imagefolder", _files, _records)
