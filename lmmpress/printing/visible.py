"""Makes untrusted text safe to print: shows characters that move the cursor, start a line or change text direction."""

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats, lone surrogates, line and paragraph separators
_JOINERS = "\u200c\u200d"  # some scripts and emoji need these


def visible(text: object) -> str:
    """`text` as one line, with every control character, lone surrogate and bidirectional mark written as an escape."""
    return "".join(_shown(character) for character in str(text))


def _shown(character: str) -> str:
    if unicodedata.category(character) in _HIDDEN and character not in _JOINERS:
        return character.encode("unicode_escape").decode()
    return character


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes, with control characters made visible; the middle of a long text is left out."""
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 3 :]}"
    return f'"{visible(text)}"'
