"""Texts for comparison: without differences of width and case, and cut into words.

A Chinese character or a kana is a word of its own, since these scripts write no spaces. All functions take time in
proportion to the text, which may come from strangers.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_MOST_MARKS = 30  # combining marks in a row, as in the Stream-Safe Text Format of UAX #15
_UNSPACED = re.compile(
    "[々〇\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]",
)
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_WORD, _SINGLE, _SYMBOL, _GAP = range(4)


def one_width(text: str) -> str:
    """A text in Unicode's form NFKC: full-width letters become usual ones, half-width kana full ones.

    Combining marks after the 30th in a row go: Python's normalisation takes quadratic time to sort them.
    """
    if text.isascii():
        return text
    kept, marks = [], 0
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        if marks <= _MOST_MARKS:
            kept.append(character)
    return unicodedata.normalize("NFKC", "".join(kept))


def folded(text: str) -> str:
    """A text without differences of width and case."""
    return one_width(one_width(text).casefold())


def words(text: str) -> list[str]:
    """The words of a text without differences of width and case: runs of letters, digits and marks, and single
    characters of scripts without spaces. Everything else separates words."""
    return _joined((character, _kind(character)) for character in folded(text))


def same_writing(text: str) -> tuple[str, ...]:
    """The words and symbols of a text: equal for two texts that differ only in case, width, punctuation and spaces.

    Symbols (`$`, `+`, `°`) and `%` count. Punctuation does not, except between two digits (3.5) and for a minus before
    a number. An apostrophe within a word goes, so that `don't` is one word. A text of nothing but punctuation stays as
    it is.
    """
    plain = folded(text)
    found = _APOSTROPHE.sub("", plain)
    kinds = []
    for at, character in enumerate(found):
        kind = _kind(character)
        if kind == _GAP and not character.isspace():
            character, kind = _punctuation(character, found[at - 1 : at], found[at + 1 : at + 2])
        kinds.append((character, kind))
    return tuple(_joined(kinds)) or ((" ".join(plain.split()),) if plain.strip() else ())


def unspaced_apart(text: str) -> str:
    """A text with spaces around each character of scripts that write none."""
    return _UNSPACED.sub(r" \g<0> ", text)


def numbered(*texts: Sequence[str]) -> list[list[int]]:
    """Each word as a number, the same for equal words in all texts: what compares words quickly compares hashes, and
    those of texts may collide."""
    known: dict[str, int] = {}
    return [[known.setdefault(word, len(known)) for word in text] for text in texts]


def _joined(characters: Iterable[tuple[str, int]]) -> list[str]:
    found: list[str] = []
    for kind, run in groupby(characters, key=lambda one: one[1]):
        together = [character for character, _ in run]
        if kind == _WORD:
            found.append("".join(together))
        elif kind != _GAP:
            found.extend(together)
    return found


def _punctuation(character: str, before: str, after: str) -> tuple[str, int]:
    """What becomes of a punctuation mark between two characters."""
    dash = unicodedata.category(character) == "Pd" or character == "\N{MINUS SIGN}"
    between = before.isdecimal() and after.isdecimal()
    if between or (dash and after.isdecimal() and not before.isalnum()):
        return "-" if dash else character, _WORD
    counts = unicodedata.category(character) in ("Sc", "Sm", "So") or character in "%‰"
    return character, _SYMBOL if counts and not dash else _GAP


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> int:
    """What a character is to `words`; to it a symbol separates words too."""
    if _UNSPACED.match(character):
        return _SINGLE
    return _WORD if unicodedata.category(character)[0] in "LNM" else _GAP


@lru_cache(maxsize=1 << 16)
def _is_mark(character: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) != 0
