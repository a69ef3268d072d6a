"""A manifest: the files of a checkpoint, by name. It may come from a stranger, so its names are checked."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lmmpress.files.digest import digest_files
from lmmpress.store.objects import Blob, UnreadableError

LARGEST = 5 << 40  # bytes of a file: the most that S3 stores
_LONGEST_PART, _LONGEST = 255, 1024  # bytes of one name and of a whole path: the most that disks and S3 allow


def safe_name(name: str) -> str:
    """The same name of a file in a checkpoint. ValueError where it leads outside, or where no disk allows it."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError("is no name of a file in a checkpoint")
    if path.as_posix() != name:
        raise ValueError("is no name of a file in a checkpoint")
    encoded = [part.encode(errors="replace") for part in path.parts]
    if max(map(len, encoded)) > _LONGEST_PART or len(name.encode(errors="replace")) > _LONGEST:
        raise ValueError("is too long for the name of a file")
    return name


def safe_names(names: Iterable[str]) -> None:
    """ValueError where a name is not safe, or where a file and a folder have the same name."""
    known = {safe_name(name) for name in names}
    for name in sorted(known):
        for folder in PurePosixPath(name).parents:
            if folder.as_posix() in known:
                raise ValueError(f"{folder.as_posix()!r} is a file and also the folder of {name!r}")


class File(BaseModel):
    """One file of a manifest, `size` in bytes."""

    model_config = ConfigDict(extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=LARGEST)]

    @property
    def blob(self) -> Blob:
        return Blob(self.sha256, self.size)


def _together(files: dict[str, File]) -> dict[str, File]:
    safe_names(files)
    return files


class Manifest(BaseModel):
    """The files of a checkpoint, by their names in it."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    files: Annotated[dict[Annotated[str, AfterValidator(safe_name)], File], AfterValidator(_together)]

    @property
    def digest(self) -> str:
        return digest_files({name: file.sha256 for name, file in self.files.items()})

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files.values())


def parse_manifest(data: bytes, address: str, name: str) -> Manifest:
    """The manifest in the object `name` of a store; UnreadableError where the object holds something else."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise UnreadableError(address, name, f"is no manifest: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """The first fault that a check by pydantic has found: where it is, and what it is."""
    fault = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
