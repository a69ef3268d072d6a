"""Writes a file as a whole or not at all."""

import os
from pathlib import Path


def draft_of(path: Path) -> Path:
    """The temporary file that replaces `path` when it is complete."""
    return path.with_name(f".{path.name}.new")


def write_whole(path: Path, text: str) -> None:
    """Write a text file: whoever reads it finds the old content or the new, never a part."""
    draft = draft_of(path)
    try:
        draft.write_text(text, "utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
