"""Parquet files, as the Hugging Face hub has them: any *.parquet of the folder and of its sub-folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lmmpress.data.containers.container import Container, Record
from lmmpress.data.containers.file_names import split_of, with_ending
from lmmpress.host.extras import needs


def read_parquet(folder: Path, name: str, split: str | None = None) -> Iterator[Record]:
    """The rows of one Parquet file as a stream. Pictures are its binary columns, and structures of bytes and path.

    Raises UserError where pyarrow is not installed, for a file that is missing, outside of the folder or damaged, and
    for a value that JSON has no form for.
    """
    needs("pyarrow", str(folder / name))
    from lmmpress.data.containers.parquet_file import rows

    return rows(folder, name, split)


def _files(names: Sequence[str]) -> list[str]:
    return with_ending(names, ".parquet")


def _records(folder: Path, names: Sequence[str]) -> Iterator[Record]:
    for name in names:
        yield from read_parquet(folder, name, split_of(name))


PARQUET = Container("Parquet files", _files, _records)
