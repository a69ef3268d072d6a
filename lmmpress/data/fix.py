"""Writes the rows of a data set that have no fault as an imagefolder: metadata.jsonl, and each picture once."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmmpress.data.address import shown
from lmmpress.data.containers.imagefolder import METADATA
from lmmpress.data.description import Fixed
from lmmpress.data.pictures import MOST_BYTES
from lmmpress.data.row import Row
from lmmpress.data.survey import Survey
from lmmpress.data.text import LONGEST_FILE, LONGEST_LINE
from lmmpress.data.workers import by_workers
from lmmpress.errors import UserError
from lmmpress.progress import track

_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
_CONTENTS = (
    "FROM shown JOIN good ON good.id = shown.row JOIN pictures ON pictures.id = picture "
    "JOIN looks ON looks.id = pictures.id GROUP BY sha256"
)


def check_target(source: Path, target: Path) -> None:
    """Raise UserError unless a clean copy of `source` can be written to `target`."""
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} lies in the data set {shown(source)}; write the copy elsewhere")
    if (target.exists() or target.is_symlink()) and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} exists; name a new folder, or an empty one")


def write_clean(survey: Survey, target: Path) -> Fixed:
    """Write the good rows and their pictures into a new folder, which is there when it is whole.

    The bytes of pictures are copied. Their names are made of their contents. Raises UserError if there is no good row,
    if the target cannot be used, and if a picture changes meanwhile.
    """
    folder = survey.index.folder
    check_target(folder, target)
    ((count,),) = survey.ask("SELECT count(*) FROM good")
    if not count:
        raise UserError(f"{shown(folder)}: every row has a fault, so there is nothing to write to {target}")
    place = target.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as around:
        aside = Path(around, place.name)
        aside.mkdir()
        pictures = _copy_pictures(survey, aside)
        with (aside / METADATA).open("wb") as file:
            for split, row in track(survey.rows(), f"write {METADATA}", count):
                file.write(_line(survey, split, row))
                if file.tell() > LONGEST_FILE:
                    raise UserError(
                        f"{target}: {METADATA} would have more than {LONGEST_FILE:,} bytes; write it split by split "
                        "(--split)"
                    )
        check_target(folder, target)
        os.replace(aside, place)
    return Fixed(str(target), count, pictures)


def _copy_pictures(survey: Survey, aside: Path) -> int:
    ((count,),) = survey.ask(f"SELECT count(*) FROM (SELECT 1 {_CONTENTS})")

    def copy(one: tuple[str, str, str]) -> None:
        sha256, kind, name = one
        raw = survey.index.read_picture(name, MOST_BYTES)
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise UserError(f"{shown(survey.index.folder)}: image {name!r} has changed since it was read; start again")
        path = aside / _file_name(sha256, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)

    found = survey.each(f"SELECT sha256, format, min(name) {_CONTENTS}")
    for _ in track(by_workers(copy, found), "copy images", count):
        pass
    return int(count)


def _file_name(sha256: str, kind: str) -> str:
    return f"images/{sha256[:2]}/{sha256}.{_ENDINGS.get(kind, kind.lower())}"


def _line(survey: Survey, split: str, row: Row) -> bytes:
    question = "SELECT sha256, format FROM pictures JOIN looks ON looks.id = pictures.id WHERE name = ?"
    files = [_file_name(*survey.ask(question, [name])[0]) for name in row.pictures]
    line = json.dumps(_written(split, row, files), ensure_ascii=False).encode()
    if len(line) > LONGEST_LINE:
        raise UserError(f"{row.place}: the row has more than {LONGEST_LINE:,} bytes; shorten it, or leave it out")
    return line + b"\n"


def _written(split: str, row: Row, files: list[str]) -> dict[str, Any]:
    """A row as metadata.jsonl has it."""
    values: dict[str, Any] = {"file_name": files[0]} if len(files) == 1 else {"file_names": files} if files else {}
    if row.chat:
        values["messages"] = [{"role": role, "content": text} for role, text in _said(row)]
    else:
        values |= {"system": row.system} if row.system else {}
        values["question"] = row.question
        if row.answers:
            values["answer"] = list(row.answers) if row.others else row.answer
    return values | {"task": row.task, "split": split}


def _said(row: Row) -> Iterator[tuple[str, str]]:
    if row.system:
        yield "system", row.system
    for turn in row.before:
        yield from (("user", turn.question), ("assistant", turn.answer))
    yield "user", row.question
    if row.answer:
        yield "assistant", row.answer
