"""Computes a checkpoint's digest from the sha256 of its files. Needs neither torch nor transformers."""

import hashlib
from pathlib import Path

from lmmpress.files.allow_list import RECORD, Files, choose

_BLOCK = 1 << 22


def digest_checkpoint(checkpoint: Path) -> str:
    """The digest of a checkpoint: sha256 over the names and the sha256 of its files, without COMPRESSION.json.

    The digest identifies the model. COMPRESSION.json says where the model comes from, so it does not count. Files that
    the allow list leaves out do not count either.
    """
    return digest_files(sha256_by_name(choose(checkpoint)))


def sha256_by_name(files: Files) -> dict[str, str]:
    """The sha256 of each file of a checkpoint, in hexadecimal digits."""
    rewritten = {name: hashlib.sha256(data).hexdigest() for name, data in files.rewritten.items()}
    return {name: sha256_of(path) for name, path in files.taken.items()} | rewritten


def digest_files(sha256_by_name: dict[str, str]) -> str:
    """The digest of the checkpoint that consists of these files."""
    files = sorted((name, sha) for name, sha in sha256_by_name.items() if name != RECORD)
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in files).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()
