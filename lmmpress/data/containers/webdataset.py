"""WebDataset: tar shards in which the files of a sample follow each other, and share their name up to the first dot.

https://github.com/webdataset/webdataset
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from lmmpress.data.containers.container import Container, Held, Record
from lmmpress.data.containers.file_names import check_inside, is_shown, split_of, with_ending
from lmmpress.data.containers.tar_members import Member, members
from lmmpress.data.pictures import MOST_BYTES
from lmmpress.data.text import LONGEST_LINE
from lmmpress.errors import UserError
from lmmpress.files.strict_json import parse_mapping

KEY = "__key__"
"""The column of a sample's own name, as in Hugging Face's reader."""

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
_PICTURES = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "jp2", "avif", "heic"}
_TEXTS = {"txt", "text", "transcript"}
_NUMBERS = {"cls", "cls2", "class", "count", "index", "inx", "id"}
_OBJECTS = {"json", "jsn"}
_NUMBER = re.compile(rb"\s*[-+]?\d{1,18}\s*")


def _files(names: Sequence[str]) -> list[str]:
    return with_ending(names, *_ENDINGS)


def _records(folder: Path, names: Sequence[str]) -> Iterator[Record]:
    for name in names:
        check_inside(folder, name)
        split = split_of(name)
        with (folder / name).open("rb") as file:
            shard = _Shard(folder, name, file)
            for number, (key, files) in enumerate(_samples(shard), 1):
                try:
                    values, fault = _values(shard, key, files), ""
                except UserError as error:
                    values, fault = {}, str(error).removeprefix(f"{shard.path}, ")
                yield Record(values, f"{name}, sample {key}", number, split, fault)


@dataclass(frozen=True)
class _Shard:
    """An open tar, by its path inside the data set's folder."""

    folder: Path
    name: str
    file: BinaryIO

    @cached_property
    def path(self) -> Path:
        return self.folder / self.name

    def read(self, member: Member) -> bytes:
        self.file.seek(member.offset)
        return self.file.read(member.size)


def _samples(shard: _Shard) -> Iterator[tuple[str, dict[str, Member]]]:
    """Each sample of a shard: its key, and its members by what follows the first dot, in small letters.

    Raises UserError for two members of one name, and for samples whose members do not follow each other; for that the
    hashes of a shard's keys are kept.
    """
    seen: set[int] = set()
    for key, group in groupby(_named(shard), lambda one: one[0]):
        if hash(key) in seen:
            raise UserError(
                f"{shard.path}: the files of sample {key!r} do not follow each other; pack it sorted by name"
            )
        seen.add(hash(key))
        files: dict[str, Member] = {}
        for _, ending, member in group:
            if ending in files:
                raise UserError(f"{shard.path}, {member.name}: sample {key!r} has two files .{ending}; keep one")
            files[ending] = member
        yield key, files


def _named(shard: _Shard) -> Iterator[tuple[str, str, Member]]:
    """The members that belong to a sample, with key and ending; files without a dot, and hidden ones, do not."""
    for member in members(shard.file, shard.path):
        if (match := _MEMBER.fullmatch(member.name)) and is_shown(member.name):
            yield match[1], match[2].lower(), member


def _values(shard: _Shard, key: str, files: dict[str, Member]) -> dict[str, object]:
    """The columns of a sample: the keys of its JSON, and a column for each other file, by its ending. Files that are
    neither pictures, texts, numbers nor JSON are not read, and are no columns."""
    values: dict[str, object] = {KEY: key}
    left = LONGEST_LINE
    for ending, member in files.items():
        kind = ending.rpartition(".")[2]
        place = f"{shard.path}, {member.name}"
        if kind in _PICTURES:
            if member.size > MOST_BYTES:
                raise UserError(f"{place} has {member.size:,} bytes, more than {MOST_BYTES:,}")
            found: dict[str, object] = {
                ending: Held(f"{shard.name}, {member.name}", path=shard.name, offset=member.offset, size=member.size)
            }
        elif kind in _TEXTS | _NUMBERS | _OBJECTS:
            left -= member.size
            if left < 0:
                raise UserError(f"{place}: the texts of a sample have more than {LONGEST_LINE:,} bytes; shorten them")
            raw = shard.read(member)
            found = parse_mapping(raw, place, unique=True) if kind in _OBJECTS else {ending: _plain(raw, kind, place)}
        else:
            continue
        if twice := values.keys() & found.keys():
            raise UserError(f"{place}: sample {key!r} has {min(twice)!r} twice; rename one")
        values |= found
    return values


def _plain(raw: bytes, kind: str, place: str) -> object:
    """A text without the line break at its end, or a number."""
    if kind in _NUMBERS:
        if not _NUMBER.fullmatch(raw):
            raise UserError(f"{place} is no whole number; write it as digits, or as .txt")
        return int(raw)
    try:
        return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UserError(f"{place} is not UTF-8; convert it (iconv)") from None


WEBDATASET = Container("WebDataset shards", _files, _records)
