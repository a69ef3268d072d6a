"""What the names of a container's files say: their order, and the split that each belongs to.

Splits are recognised as the Hugging Face hub does it: https://huggingface.co/docs/hub/datasets-file-names-and-splits
"""

import re
from collections.abc import Iterable
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.files.bounded import check_file

_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_OURS = ("score", "distill", "gate")
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*", re.ASCII)
_BETWEEN = "[-._ 0-9]"  # stands on both sides of a keyword in a name
_WORDS = {
    split: re.compile(rf"(?:^|{_BETWEEN})(?:{'|'.join(words)})(?:{_BETWEEN}|$)") for split, words in _KEYWORDS.items()
}
_OUR_WORD = re.compile(rf"({'|'.join(_OURS)})(?:{_BETWEEN}|$)")


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A sort key: numbers in names are ordered by their value, so that shard-10 follows shard-9."""
    return tuple((text, int(digits or -1)) for text, digits in re.findall(r"([^0-9]*)([0-9]*)", name))


def is_shown(name: str) -> bool:
    """Whether no part of a file's path is hidden (.cache) or is meant for programs (__MACOSX)."""
    return not any(part.startswith((".", "__")) for part in name.split("/"))


def with_ending(names: Iterable[str], *endings: str) -> list[str]:
    """The files that are not hidden and end so, whatever the case of their letters, in natural order."""
    return sorted((name for name in names if name.lower().endswith(endings) and is_shown(name)), key=natural)


def check_inside(folder: Path, name: str) -> None:
    """Raise UserError unless a container's file is a regular file inside the folder of the data set."""
    try:
        check_file(folder, name)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def split_of(name: str) -> str | None:
    """The split that a file belongs to by its path inside the data set; None if the path does not say.

    A shard says it itself: gate-00000-of-00002.parquet. Otherwise the innermost folder that says it counts, then the
    file's own name; train, validation (valid, val, dev) and test (eval) are words in it. A name with two such words
    says nothing. Our own splits (score, distill, gate) are a folder's whole name, or begin the file's name.
    """
    *folders, own = name.split("/")
    if shard := _SHARD.fullmatch(own):
        return _canonical(shard[1])
    for folder in reversed(folders):
        if folder in _OURS:
            return folder
        if found := _by_word(folder):
            return found
    if ours := _OUR_WORD.match(own):
        return ours[1]
    return _by_word(own)


def _canonical(word: str) -> str:
    return next((split for split, words in _KEYWORDS.items() if word in words), word)


def _by_word(part: str) -> str | None:
    found = [split for split, words in _WORDS.items() if words.search(part)]
    return found[0] if len(found) == 1 else None
