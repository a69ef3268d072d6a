"""Makes one line of any text, safe to print: for messages of other systems."""

import re

from lmmpress.printing.credentials import without_credentials

LONGEST = 400
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def printable(text: str, most: int = LONGEST) -> str:
    """Text in one line that is safe for any terminal: without control characters and credentials, and shortened if it
    is very long."""
    text = _CONTROL.sub(" ", without_credentials(text)).encode("utf-8", "replace").decode("utf-8").strip()
    return text if len(text) <= most else f"{text[: most - 4]} ..."
