"""What tests of data containers share: reading a folder through one, and the bytes of what is held in it."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmmpress.data.containers.container import Container, Held, Record
from lmmpress.errors import UserError


def names_in(folder: Path) -> list[str]:
    """The names of all files of a folder, as a bucket would list them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def stream_of(container: Container, folder: Path) -> Iterator[Record]:
    return container.records(folder, container.files(names_in(folder)))


def read_all(container: Container, folder: Path) -> list[Record]:
    return list(stream_of(container, folder))


def raw_of(folder: Path, held: object) -> bytes:
    """The bytes of a picture, wherever it is."""
    assert isinstance(held, Held)
    if held.raw is not None:
        return held.raw
    with (folder / held.path).open("rb") as file:
        file.seek(held.offset)
        return file.read(held.size)


def refusal(container: Container, folder: Path) -> str:
    """The one line that reading a folder ends with."""
    with pytest.raises(UserError) as caught:
        for record in stream_of(container, folder):
            if record.fault:
                raise UserError(f"{folder}/{record.place}: {record.fault}")
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


def fault_of(container: Container, folder: Path) -> tuple[str, ...]:
    """The lines that reading a folder ends with; none if it can be read."""
    try:
        read_all(container, folder)
    except UserError as error:
        return error.lines
    return ()


def peak_of(container: Container, folder: Path) -> int:
    """The most bytes of Python's that reading all records takes at once, each forgotten after it was seen."""
    read_all(container, folder)  # so that what is kept for good, such as imports, does not count
    tracemalloc.start()
    try:
        for _ in stream_of(container, folder):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
