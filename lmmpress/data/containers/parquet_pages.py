"""What the pages of a Parquet file expand to, by their headers: nothing is decompressed.

pyarrow allocates what the header of a page says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from lmmpress.data.containers.parquet_footer import Chunk
from lmmpress.data.containers.thrift import INTEGERS, STRUCT, DamagedError, EndError, Reader

_LONGEST_HEADER = 16 << 20  # bytes, as in pyarrow
_FIRST_READ = 1 << 10  # bytes of a header that are read at first; nearly all have fewer
_BY_DICTIONARY, _BY_PREFIX = (2, 8), (7,)  # encodings of pages whose values may take more than the page itself
# the numbers of fields of a page's header
_EXPANDED, _STORED, _DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 2, 3, 5, 7, 8
_VALUES, _ENCODING, _ENCODING_V2 = 1, 2, 4


@dataclass(frozen=True)
class Sizes:
    """What the pages of a column chunk take, in bytes: in the file and expanded; the largest page; the dictionary, if
    pages use it; the largest page of values that share prefixes. And the number of values."""

    stored: int
    expanded: int
    largest: int
    dictionary: int
    by_prefix: int
    values: int


@dataclass(frozen=True)
class _Page:
    stored: int
    expanded: int
    values: int
    encoding: int
    is_dictionary: bool


def sizes(file: BinaryIO, chunk: Chunk) -> Sizes:
    """Raises DamagedError if the header of a page makes no sense."""
    found = list(_pages(file, chunk))
    data = [page for page in found if not page.is_dictionary]
    uses_dictionary = any(page.encoding in _BY_DICTIONARY for page in data)
    return Sizes(
        stored=sum(page.stored for page in found),
        expanded=sum(page.expanded for page in found),
        largest=max((page.expanded for page in data), default=0),
        dictionary=sum(page.expanded for page in found if page.is_dictionary) if uses_dictionary else 0,
        by_prefix=max((page.expanded for page in data if page.encoding in _BY_PREFIX), default=0),
        values=sum(page.values for page in data),
    )


def _pages(file: BinaryIO, chunk: Chunk) -> Iterator[_Page]:
    start, end, seen = chunk.start, chunk.start + chunk.size, 0
    while start < end and seen < chunk.values:
        page, header = _page(file, start, end)
        start += header + page.stored
        if start > end:
            raise DamagedError("has a page that is longer than the column")
        seen += 0 if page.is_dictionary else page.values
        yield page


def _page(file: BinaryIO, start: int, end: int) -> tuple[_Page, int]:
    """The page whose header begins at `start`, and the bytes of that header."""
    limit = min(end - start, _LONGEST_HEADER)
    size = _FIRST_READ
    while True:
        file.seek(start)
        reader = Reader(file.read(min(size, limit)))
        try:
            return _header(reader), reader.position
        except EndError:
            if size >= limit:
                raise
            size *= 16


def _header(reader: Reader) -> _Page:
    numbers = {_EXPANDED: 0, _STORED: 0}
    inner: dict[int, dict[int, int]] = {}
    for field, kind in reader.fields():
        if field in numbers and kind in INTEGERS:
            numbers[field] = reader.integer()
        elif field in (_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2) and kind == STRUCT:
            inner[field] = reader.integers()
        else:
            reader.skip(kind)
    described = next(iter(inner.values()), {})
    encoding = described.get(_ENCODING_V2 if _DATA_PAGE_V2 in inner else _ENCODING, 0)
    page = _Page(numbers[_STORED], numbers[_EXPANDED], described.get(_VALUES, 0), encoding, _DICTIONARY_PAGE in inner)
    if min(page.stored, page.expanded, page.values) < 0:
        raise DamagedError("has a page of a negative size")
    return page
