"""Reads the lines of an untrusted text file as strict UTF-8, whatever the machine's locale is."""

import codecs
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from lmmpress.errors import UserError
from lmmpress.files.bounded import LFS_POINTER, check_file

LONGEST_FILE = 2 << 30  # bytes
LONGEST_LINE = 8 << 20  # bytes

_SAMPLE = 1 << 16  # bytes that the guess of an encoding reads
_WIDE = (
    # UTF-32 first: its little-endian byte-order mark begins with that of UTF-16
    ("UTF-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, b"{\0\0\0", b"\0\0\0{")),
    ("UTF-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{", b"[\0", b"\0[")),
)

# files that are not text: their first bytes, what they are, and what to do
_OTHERS = (
    (LFS_POINTER, "is a git-lfs pointer and not the file itself", "run `git lfs pull` there"),
    (b"\x1f\x8b", "is compressed by gzip", "unpack it (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", "unpack it (unzstd)"),
    (b"PK\x03\x04", "is a zip archive", "unpack it"),
    (b"PAR1", "is a Parquet file", "give it a name that ends with .parquet"),
)


def read_lines(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file of a data set with their numbers, from 1; a byte-order mark is skipped.

    Raises UserError if the file is not UTF-8 (with the line and the likely encoding), is compressed or not text, is not
    a regular file inside the folder, or if the file or a line is too long.
    """
    path = folder / name
    with _opened(folder, name) as file:
        number = 0
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE:
                raise UserError(f"{path}, line {number}: the line is longer than {LONGEST_LINE:,} bytes; shorten it")
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError:
                raise _not_utf8(f"{path}, line {number}", raw + file.read(_SAMPLE)) from None


def read_text(folder: Path, name: str) -> Iterator[str]:
    """The text of a UTF-8 file of a data set in parts of any length. Raises UserError as `read_lines` does; lines may
    be of any length."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with _opened(folder, name) as file:
        before = b""
        while True:
            raw = file.read(_SAMPLE)
            try:
                text = decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                place = f"{folder / name}, byte {file.tell() - len(raw) + error.start:,}"
                raise _not_utf8(place, before + raw) from None
            if text:
                yield text
            if not raw:
                return
            before = raw[-4:]


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[BinaryIO]:
    """A text file of a data set, after its byte-order mark. Raises UserError for what is no text in UTF-8."""
    path = folder / name
    try:
        check_file(folder, name)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    if (size := os.stat(path).st_size) > LONGEST_FILE:
        raise UserError(f"{path} has {size:,} bytes, more than {LONGEST_FILE:,}; split the data set")
    with path.open("rb") as file:
        start = file.read(64)
        for magic, what, remedy in _OTHERS:
            if start.startswith(magic):
                raise UserError(f"{path} {what}; {remedy}")
        for encoding, marks in _WIDE:
            if start.startswith(marks):
                raise UserError(f"{path} is {encoding}, not UTF-8; convert it: iconv -f {encoding} -t UTF-8")
        file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        yield file


def _not_utf8(place: str, raw: bytes) -> UserError:
    likely = likely_encoding(raw)
    return UserError(
        f"{place}: not UTF-8, it looks like {likely}; convert the file: iconv -f {likely.split()[0]} -t UTF-8"
    )


def likely_encoding(raw: bytes) -> str:
    """Guess the encoding of bytes that are not UTF-8, for a message.

    In an East Asian encoding nearly all non-ASCII bytes decode to characters that are common in its language. In
    Cyrillic text non-ASCII bytes stand next to each other, in Western European text they stand alone.
    """
    beyond = sum(byte >= 0x80 for byte in raw)
    pairs = sum(one >= 0x80 and next_one >= 0x40 for one, next_one in pairwise(raw))
    if pairs >= beyond / 2:
        for name, codec, is_common, least in _ENCODINGS:
            wide = [character for character in raw.decode(codec, "replace") if ord(character) >= 0x80]
            if len(wide) >= least and sum(map(is_common, wide)) >= 0.7 * len(wide):
                return name
    beside = sum(one >= 0x80 and next_one >= 0x80 for one, next_one in pairwise(raw))
    if beside >= beyond / 2 and sum(map(_CYRILLIC, raw.decode("cp1251", "ignore"))) >= 0.7 * beyond:
        return "WINDOWS-1251"
    return "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in raw) else "ISO-8859-1 (Latin-1)"


def _among(*ranges: tuple[int, int]) -> Callable[[str], bool]:
    """A test whether a character's code point lies in one of the ranges."""
    return lambda character: any(low <= ord(character) <= high for low, high in ranges)


def _led_by(codec: str, *ranges: tuple[int, int]) -> Callable[[str], bool]:
    """A test whether a character's first byte lies in one of the ranges, where the codec has common characters."""

    def is_common(character: str) -> bool:
        first = character.encode(codec, "ignore")[:1]
        return bool(first) and any(low <= first[0] <= high for low, high in ranges)

    return is_common


_CYRILLIC = _among((0x410, 0x44F))
_KANA = _among((0x3040, 0x30FF))
_COMMON_IN_JAPANESE = _led_by("shift_jis", (0x81, 0x81), (0x88, 0x97))
# name, codec, test for common characters, and the least number of characters for a guess
_ENCODINGS: tuple[tuple[str, str, Callable[[str], bool], int], ...] = (
    ("EUC-KR", "euc_kr", _among((0xAC00, 0xD7A3)), 4),
    ("SHIFT_JIS", "shift_jis", lambda one: _KANA(one) or _COMMON_IN_JAPANESE(one), 1),
    ("GBK", "gb18030", _led_by("gb2312", (0xA1, 0xA3), (0xB0, 0xD7)), 1),
    ("BIG5", "big5", _led_by("big5", (0xA1, 0xC6)), 1),
)
