"""Recognises the form of a data set by the names of its files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmmpress.data.containers.container import Container
from lmmpress.data.containers.datasets_folder import DATASETS
from lmmpress.data.containers.imagefolder import IMAGEFOLDER
from lmmpress.data.containers.json_files import JSON_FILES
from lmmpress.data.containers.parquet import PARQUET
from lmmpress.data.containers.webdataset import WEBDATASET
from lmmpress.errors import UserError

CONTAINERS: tuple[Container, ...] = (IMAGEFOLDER, DATASETS, WEBDATASET, PARQUET, JSON_FILES)
"""In the order in which they are tried."""


@dataclass(frozen=True)
class Found:
    """The form of a data set: its container and the files with its rows. `others` are the names of further forms that
    it has files of, which are not read."""

    container: Container
    files: tuple[str, ...]
    others: tuple[str, ...]


def files_with_rows(names: Sequence[str]) -> tuple[str, ...]:
    """Of the names of a data set's files, those of the files with its rows; none if no form is recognised."""
    for container in CONTAINERS:
        if files := container.files(names):
            return tuple(files)
    return ()


def recognise(folder: str, names: Callable[[bool], Sequence[str]]) -> Found:
    """The form of the data set in a folder. `names` lists its files, those of its subfolders only if it gets True.

    The files in the folder itself are looked at first. Raises UserError if no form is recognised.
    """
    for deep in (False, True):
        found = [(container, files) for container in CONTAINERS if (files := container.files(names(deep)))]
        if found:
            container, files = found[0]
            others = (other.name for other, theirs in found[1:] if not set(theirs) <= set(files))
            return Found(container, tuple(files), tuple(others))
    forms = ", ".join(container.name for container in CONTAINERS)
    raise UserError(
        f"{folder} is no data set: it has no metadata.jsonl, nor files of another form ({forms}); see docs/data.md"
    )
