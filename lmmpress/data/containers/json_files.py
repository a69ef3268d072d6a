"""JSON files with rows: a list of objects as LLaVA and ShareGPT publish them, or an object on each line.

A list is read as a stream: the decoder gets a part of the text that ends after an object, and no more is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lmmpress.data.containers.container import Container, Record
from lmmpress.data.containers.file_names import natural, split_of
from lmmpress.data.containers.imagefolder import DECODER, TwiceError, json_lines, reason
from lmmpress.data.text import LONGEST_LINE, read_text
from lmmpress.errors import UserError

_NO_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json")
_SPACE = " \t\r\n"


def _files(names: Sequence[str]) -> list[str]:
    """The JSON files of the folder itself; where there are none, those in the folder data."""
    for folder in ("", "data/"):
        found = [
            name
            for name in names
            if name.startswith(folder)
            and "/" not in name[len(folder) :]
            and name.endswith((".json", ".jsonl"))
            and name.rsplit("/", 1)[-1] not in _NO_ROWS
        ]
        if found:
            return sorted(found, key=natural)
    return []


def _records(folder: Path, files: Sequence[str]) -> Iterator[Record]:
    for name in files:
        split = split_of(name)
        for record in json_lines(folder, name) if name.endswith(".jsonl") else _of_file(folder, name):
            yield replace(record, split=split)


def _of_file(folder: Path, name: str) -> Iterator[Record]:
    """The objects of a JSON list, or of lines of JSON under the name .json."""
    start = next((part for part in read_text(folder, name) if part.strip()), "[")
    if start.lstrip().startswith("{"):
        yield from json_lines(folder, name)
        return
    for number, value in enumerate(_entries(folder, name), start=1):
        fault = "" if isinstance(value, dict) else "a row is a JSON object"
        yield Record(value if isinstance(value, dict) else {}, f"{name}, row {number}", number, fault=fault)


def _entries(folder: Path, name: str) -> Iterator[object]:
    """The entries of a list of any length. Raises UserError with the number of the entry where the text is no list."""
    parts = read_text(folder, name)
    text, number, due = "", 0, "["
    while True:
        text = text.lstrip(_SPACE)
        while not text:
            part = next(parts, None)
            if part is None:
                if due:
                    raise UserError(f"{folder / name}: the file ends in its list of rows; fetch it again")
                return
            text = part.lstrip(_SPACE)
        if not due:
            raise UserError(f"{folder / name}: there is text after the list of rows; take it out")
        if text[0] == "]" and (due == "," or (due == "row" and number == 0)):
            text, due = text[1:], ""
        elif due == "row":
            number += 1
            value, text = _entry(text, parts, f"{folder / name}, row {number}")
            yield value
            due = ","
        elif text[0] == due:
            text, due = text[1:], "row"
        else:
            raise UserError(
                f"{folder / name}: {due!r} is due before row {number + 1}, not {text[0]!r}; the file holds a list of "
                "objects, [{...}, {...}], or an object on each line"
            )


def _entry(text: str, parts: Iterator[str], place: str) -> tuple[object, str]:
    """Decode the value that `text` begins with, taking further parts as long as it is not whole; what is left over."""
    while True:
        try:
            value, end = DECODER.raw_decode(text)
            return value, text[end:]
        except TwiceError as error:
            raise UserError(f"{place}: {reason(error)}") from None
        except (ValueError, RecursionError) as error:
            if len(text) > LONGEST_LINE:
                raise UserError(f"{place}: {reason(error)}, or the row is longer than {LONGEST_LINE:,} bytes") from None
            more = _some(parts, len(text))
            if not more:
                raise UserError(f"{place}: {reason(error)}") from None
            text += more


def _some(parts: Iterator[str], least: int) -> str:
    """The next parts, together at least as long as what was decoded in vain: so a row is decoded a few times only."""
    found: list[str] = []
    length = 0
    while length < least and (part := next(parts, None)):
        found.append(part)
        length += len(part)
    return "".join(found)


JSON_FILES = Container("JSON files", _files, _records)
