"""What names a checkpoint: the sha256 of its files. Needs neither torch nor transformers."""

import hashlib
from pathlib import Path

from lmmpress.files.allow_list import RECORD, Files, choose

_BLOCK = 1 << 22


def digest_checkpoint(checkpoint: Path) -> str:
    """sha256 that names a checkpoint: over the names and the sha256 of its files, COMPRESSION.json left out.

    The name says what a model is; where it comes from does not change that. What the allow list
    leaves out of a directory is no part of it.
    """
    return digest_files(sha256_by_name(choose(checkpoint)))


def sha256_by_name(files: Files) -> dict[str, str]:
    """The sha256 of each file of a checkpoint, in hexadecimal digits."""
    made = {name: hashlib.sha256(data).hexdigest() for name, data in files.rewritten.items()}
    return {name: sha256_of(path) for name, path in files.taken.items()} | made


def digest_files(sha256_by_name: dict[str, str]) -> str:
    """The name of the checkpoint that consists of these files."""
    files = sorted((name, sha) for name, sha in sha256_by_name.items() if name != RECORD)
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in files).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()
