"""Notes from a process to the one that started it, in a file, because the process' output is untrusted."""

import json
import os

from lmmpress.printing.terminal import fit

NOTES = "LMMPRESS_NOTES"
"""The environment variable with the path of the file."""


def note(**words: str) -> None:
    """Write texts, each under a name that both processes know, if the process that started this one wants notes."""
    if file := os.environ.get(NOTES):
        with open(file, "a", encoding="utf-8") as notes:
            notes.write(json.dumps({name: fit(one) for name, one in words.items()}) + "\n")
