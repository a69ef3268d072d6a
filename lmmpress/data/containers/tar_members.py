"""The members of an uncompressed tar, read as a stream of headers: names and places, nothing is unpacked.

`tarfile` keeps every member in memory, and reads extended headers of any size. Here each header is checked by itself.
https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lmmpress.errors import UserError
from lmmpress.files.bounded import LFS_POINTER

_BLOCK = tarfile.BLOCKSIZE
_MOST_ZEROS = 64 << 20  # bytes between two tars or at the end: a sparse file has any number
_LONGEST_HEADER = 1 << 20  # bytes of an extended header
_LONGEST_NAME = 4096  # bytes, as in Linux
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_ABOUT_OTHERS = (
    *(tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_POSIX = b"ustar\0"
_OTHERS = {
    tarfile.LNKTYPE: "a link; pack the file itself",
    tarfile.SYMTYPE: "a link; pack the file itself (tar --dereference)",
    tarfile.CHRTYPE: "a device; leave it out",
    tarfile.BLKTYPE: "a device; leave it out",
    tarfile.FIFOTYPE: "a pipe; leave it out",
    tarfile.GNUTYPE_SPARSE: "a sparse file; pack it without --sparse",
}
# the first bytes of compressed files, what compressed them, and what unpacks them
_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\0", "xz", "unxz"),
)
_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def members(file: BinaryIO, path: Path) -> Iterator[Member]:
    """The regular files of an open tar, in their order; folders are passed over. The caller may read elsewhere in it.

    Blocks of zeros end a tar. Those within it are passed over: several tars may have been written one after the other.

    Raises UserError for a tar that is compressed, cut off or damaged, and for a link, a device, a sparse file or an
    absolute path in it.
    """
    size = os.fstat(file.fileno()).st_size
    _check_start(file.read(len(LFS_POINTER)), path)
    position, said, ended, zeros = 0, _Said(), False, 0
    while position < size:
        file.seek(position)
        block = file.read(_BLOCK)
        ended = not block.strip(b"\0")
        zeros = zeros + _BLOCK if ended else 0
        if zeros > _MOST_ZEROS:
            raise UserError(f"{path} holds more than {_MOST_ZEROS:,} zeros at byte {position:,}; fetch it again")
        if ended:
            position += _BLOCK
            continue
        kind, name, length = _header(block, path, position)
        name, length = said.name or name, length if said.size is None else said.size
        data = position + _BLOCK
        if data + length > size:
            raise UserError(f"{path}, {name} is cut off: the file ends within it; fetch it again")
        position = data + -(-length // _BLOCK) * _BLOCK
        if kind in _ABOUT_OTHERS:
            said = _extended(kind, file, length, said, f"{path}, {name}")
            continue
        name = _checked(name, path)
        if kind in _FILES and not name.endswith("/"):
            yield Member(name, data, length)
        elif kind not in (tarfile.DIRTYPE, *_FILES):
            raise UserError(f"{path}, {name} is {_OTHERS.get(kind, 'of an unknown type; leave it out')}")
        said = _Said()
    if not ended:
        raise UserError(f"{path} is cut off: it does not end with blocks of zeros; fetch it again")


@dataclass(frozen=True)
class _Said:
    """What extended headers say about the member that follows."""

    name: str = ""
    size: int | None = None


def _check_start(start: bytes, path: Path) -> None:
    if not start:
        raise UserError(f"{path} is empty; fetch it again")
    if start == LFS_POINTER:
        raise UserError(f"{path} is a git-lfs pointer and not the file itself; run `git lfs pull` there")
    for magic, name, command in _COMPRESSED:
        if start.startswith(magic):
            raise UserError(f"{path} is compressed by {name}; its pictures are read in place, so unpack it ({command})")


def _header(block: bytes, path: Path, position: int) -> tuple[bytes, str, int]:
    """Type, name and size that the header of a member says. Its checksum counts its own eight bytes as spaces."""
    size = _number(block[124:136])
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if len(block) < _BLOCK or size is None or _number(block[148:156]) != checksum:
        what = "cut off" if len(block) < _BLOCK else "no tar, or damaged"
        raise UserError(f"{path} is {what} at byte {position:,}; fetch it again")
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == _POSIX and (before := block[345:500].partition(b"\0")[0]):
        name = before + b"/" + name
    return block[156:157], _text(name), size


def _number(field: bytes) -> int | None:
    """A number of a header: octal digits, or above eight gigabytes big-endian with the highest bit set. None if it is
    neither, or negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip() or b"0"
    return int(digits, 8) if digits.translate(None, b"01234567") == b"" else None


def _extended(kind: bytes, file: BinaryIO, size: int, said: _Said, where: str) -> _Said:
    """What is known of the next member after an extended header."""
    if size > _LONGEST_HEADER:
        raise UserError(f"{where} has a header of {size:,} bytes, more than {_LONGEST_HEADER:,}; pack it anew")
    raw = file.read(size)
    if kind == tarfile.GNUTYPE_LONGNAME:
        return _Said(_text(raw.partition(b"\0")[0]), said.size)
    if kind == tarfile.GNUTYPE_LONGLINK:
        return said
    records = _records(raw, where)
    if any(key.startswith(b"GNU.sparse") for key in records):
        raise UserError(f"{where} is followed by {_OTHERS[tarfile.GNUTYPE_SPARSE]}")
    name, length = records.get(b"path"), records.get(b"size")
    if kind == tarfile.XGLTYPE:  # about all members, such as the comment that git archive writes
        if name is not None or length is not None:
            raise UserError(f"{where} gives all members one name or size; pack it anew")
        return said
    if length is not None and not (length.isdigit() and len(length) < 20):
        raise UserError(f"{where} has a header that is damaged; fetch it again")
    return _Said(said.name if name is None else _text(name), said.size if length is None else int(length))


def _records(raw: bytes, where: str) -> dict[bytes, bytes]:
    """The records of an extended header of POSIX, each as "LENGTH KEY=VALUE" and a line break."""
    found = {}
    position = 0
    while position < len(raw) and raw[position]:
        match = _RECORD.match(raw, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(raw) or raw[end - 1 : end] != b"\n":
            raise UserError(f"{where} has a header that is damaged; fetch it again")
        found[match[2]] = raw[match.end() : end - 1]
        position = end
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _checked(name: str, path: Path) -> str:
    """A member's name without ./ in front."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    if len(name) > _LONGEST_NAME:
        raise UserError(f"{path} has a member with a name of more than {_LONGEST_NAME:,} characters; pack it anew")
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"{path}, {name} points outside of the tar; pack it with names inside of its folder")
    return name
