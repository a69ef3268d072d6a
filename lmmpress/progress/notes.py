"""Notes from a process to the one that started it, in a file: what stands on its output may be a stranger's."""

import json
import os

from lmmpress.printing.terminal import fit

NOTES = "LMMPRESS_NOTES"
"""The variable that names the file."""


def note(**words: str) -> None:
    """Write down words, each under a name that both processes know, where the process that started this one wants
    notes."""
    if file := os.environ.get(NOTES):
        with open(file, "a", encoding="utf-8") as notes:
            notes.write(json.dumps({name: fit(one) for name, one in words.items()}) + "\n")
