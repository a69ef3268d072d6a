"""What names a checkpoint: the sha256 of its files. Needs neither torch nor transformers."""

import hashlib
from pathlib import Path

RECORD = "COMPRESSION.json"
_BLOCK = 1 << 22


def digest_checkpoint(checkpoint: Path) -> str:
    """sha256 that names a checkpoint: over the names and the sha256 of its files, COMPRESSION.json left out.

    The name says what a model is; where it comes from does not change that.
    """
    return digest_files({name: sha256_of(path) for name, path in files_of(checkpoint).items()})


def files_of(checkpoint: Path) -> dict[str, Path]:
    """Every file of a checkpoint directory by its name in it, in order of the names.

    Folders whose names begin with a dot (.git, .cache) are what tools keep for themselves, and no part of it.
    """
    found = ((path.relative_to(checkpoint), path) for path in checkpoint.rglob("*") if path.is_file())
    kept = ((name.as_posix(), path) for name, path in found if not any(part[0] == "." for part in name.parts[:-1]))
    return dict(sorted(kept))


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
