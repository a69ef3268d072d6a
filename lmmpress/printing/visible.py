"""Text of strangers, fit to be printed: what could move a cursor, forge a line or turn the reading order is shown."""

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats, lone surrogates, line and paragraph separators
_JOINERS = "\u200c\u200d"  # part of how some scripts and emoji are written


def visible(text: object) -> str:
    """`text` as one line, with every control character, lone surrogate and bidirectional mark written as an escape."""
    return "".join(_shown(character) for character in str(text))


def _shown(character: str) -> str:
    if unicodedata.category(character) in _HIDDEN and character not in _JOINERS:
        return character.encode("unicode_escape").decode()
    return character


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes, made visible, its middle left out where it is long."""
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 3 :]}"
    return f'"{visible(text)}"'
