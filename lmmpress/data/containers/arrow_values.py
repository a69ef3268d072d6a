"""Turns columns of Arrow into values that JSON can hold, and into pictures.

Needs pyarrow. Arrays are valid: the caller has checked those that come from a file as they are.
"""

import json
import math
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmmpress.data.containers.container import Held
from lmmpress.data.pictures import MOST_BYTES
from lmmpress.data.text import LONGEST_LINE
from lmmpress.errors import UserError

Feature = object
"""What `datasets` wrote about a column: a mapping with its `_type`, a list of one, a mapping by names, or nothing."""

_MEDIA = ("Audio", "Video", "Pdf", "Nifti", "Mesh")  # features that are stored as pictures are, and are none
_SEQUENCES = ("Sequence", "List", "LargeList")
_NUMBER = 8  # what a value that is no text counts as, in characters
_MOST_AT_ONCE = 4 << 20  # values that are made together
_TOO_LARGE = f" holds more than {LONGEST_LINE:,} characters, or {LONGEST_LINE // _NUMBER:,} numbers; shorten it"


@dataclass(frozen=True)
class Origin:
    """The file that arrays come from, by its path inside the data set's folder.

    If it is mapped into memory, `address` and `size` say where: a picture that lies in it is named by its place.
    """

    folder: Path
    name: str
    address: int = 0
    size: int = 0

    @property
    def place(self) -> str:
        return str(self.folder / self.name)

    def offset_of(self, data: pa.Buffer) -> int | None:
        """Where a buffer begins in the mapped file; None if it lies elsewhere in memory."""
        offset = data.address - self.address
        return offset if 0 <= offset < self.size else None

    def path_of(self, picture: object) -> object:
        """The path of a picture inside the data set: a path beside this file if there is such a file, else as it
        stands."""
        around = posixpath.dirname(self.name)
        if not around or not isinstance(picture, str) or "\0" in picture or ".." in picture.split("/"):
            return picture
        beside = posixpath.join(around, picture)
        return beside if os.path.lexists(self.folder / beside) else picture


def records_of(
    batch: pa.RecordBatch, features: Mapping[str, Feature], origin: Origin, first: int
) -> Iterator[dict[str, object]]:
    """The values of each row of a batch, by the names of their columns. `first` is the number of its first row in
    the file.

    Pictures are the values of binary columns, and structures of `bytes` and `path` as `datasets` writes them: the
    bytes are Held, in place if the file is mapped; without bytes the path stays, as text. Other media are
    their paths. Names of classes stand for their numbers. Numbers that are not finite are null, as in the JSON of
    pandas. Dates, times and decimal numbers are text.

    Raises UserError, with the row and the column, for a value that JSON has no form for and for a record that is too
    large.
    """
    try:
        columns = _columns(batch, features, origin)
    except _WrongError as wrong:
        if batch.num_rows < 2:
            raise UserError(f"{origin.place}, row {first}{wrong}") from None
        half = batch.num_rows // 2  # until the row is alone
        yield from records_of(batch.slice(0, half), features, origin, first)
        yield from records_of(batch.slice(half), features, origin, first + half)
        return
    for number, row in enumerate(zip(*columns, strict=True), first):
        record = _Record(origin, number)
        yield {name: record.settled(value, name) for name, value in zip(batch.schema.names, row, strict=True)}


def _columns(batch: pa.RecordBatch, features: Mapping[str, Feature], origin: Origin) -> list[list[object]]:
    part = _Part(origin)
    found = []
    for name, column in zip(batch.schema.names, batch, strict=True):
        try:
            found.append(part.values(column, features.get(name)))
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise _WrongError(f": column {name!r} has a value that cannot be written as JSON: {error}") from None
    return found


@dataclass
class _Record:
    """What one record may still hold."""

    origin: Origin
    number: int
    left: int = LONGEST_LINE

    def settled(self, value: object, name: str) -> object:
        """A value whose pictures have their names."""
        if isinstance(value, Held):
            return self._named(value, name)
        if isinstance(value, list):
            if any(isinstance(one, Held | list | dict) for one in value):
                return [self.settled(one, f"{name} {number}") for number, one in enumerate(value, 1)]
            self._take(sum(map(_size, value)))
        elif isinstance(value, dict):
            self._take(sum(map(_size, value)))
            return {key: self.settled(one, f"{name}.{key}") for key, one in value.items()}
        else:
            self._take(_size(value))
        return value

    def _named(self, picture: Held, name: str) -> Held:
        size = picture.size if picture.raw is None else len(picture.raw)
        if size > MOST_BYTES:
            raise UserError(
                f"{self.origin.place}, row {self.number}, {name} has {size:,} bytes, more than {MOST_BYTES:,}"
            )
        return replace(picture, name=f"{self.origin.name}, row {self.number}, {name}")

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise UserError(f"{self.origin.place}, row {self.number}{_TOO_LARGE}")


def _size(value: object) -> int:
    return len(value) if isinstance(value, str) else _NUMBER


class _WrongError(Exception):
    """Rows have a value that JSON has no form for, or more values than may be made at once. Its text follows a row's
    place."""


@dataclass
class _Part:
    """Makes the values of a few rows, and not more of them than `left`: lists of nothing take no room in a file, and
    much as Python's values."""

    origin: Origin
    left: int = _MOST_AT_ONCE

    def values(self, array: pa.Array, feature: Feature) -> list[object]:
        """The values of an array as Python's; pictures are Held without a name."""
        self.left -= len(array)
        if self.left < 0:
            raise _WrongError(_TOO_LARGE)
        kind, types = array.type, pa.types
        if isinstance(array, pa.ExtensionArray):
            if kind.extension_name == "arrow.uuid":
                return _each(lambda raw: str(UUID(bytes=raw)), array.storage.to_pylist())
            return self.values(array.storage, feature)
        if types.is_dictionary(kind):
            return self._looked_up(array, feature)
        if types.is_struct(kind):
            return self._structs(array, feature)
        if types.is_map(kind):
            pairs = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
            return _each(_pairs, self._lists(pairs, None))
        if _is_list(kind):
            return self._lists(array, _inner(feature))
        if types.is_floating(kind):
            return _each(lambda number: number if math.isfinite(number) else None, array.to_pylist())
        if types.is_fixed_size_binary(kind):  # a hash or the like: pictures differ in their sizes
            return _each(bytes.hex, array.to_pylist())
        if _is_binary(kind):
            return self._pictures(array)
        if types.is_duration(kind):
            return self.values(array.cast(pa.int64()), None)
        if types.is_timestamp(kind) and kind.tz is not None:
            return _each(lambda text: f"{text}Z", self.values(array.cast(pa.timestamp(kind.unit)), None))
        if types.is_temporal(kind):
            return _each(_shortened, array.cast(pa.string()).to_pylist())
        if types.is_decimal(kind):
            return list(array.cast(pa.string()).to_pylist())
        if types.is_integer(kind) and (names := _class_names(feature)):
            return _each(lambda number: names.get(number, number), array.to_pylist())
        return list(array.to_pylist())

    def _structs(self, array: pa.StructArray, feature: Feature) -> list[object]:
        kind = array.type
        names = [kind.field(number).name for number in range(kind.num_fields)]
        is_there = array.is_valid().to_pylist()
        if set(names) == {"bytes", "path"} and _is_binary(kind.field("bytes").type):
            paths = [self.origin.path_of(path) for path in self.values(array.field("path"), None)]
            if isinstance(feature, Mapping) and feature.get("_type") in _MEDIA:
                return [path if there else None for path, there in zip(paths, is_there, strict=True)]
            held = self.values(array.field("bytes"), None)
            return [
                (path if picture is None else picture) if there else None
                for picture, path, there in zip(held, paths, is_there, strict=True)
            ]
        fields = [self.values(array.field(number), _child(feature, name)) for number, name in enumerate(names)]
        rows = zip(*fields, strict=True) if fields else iter([()] * len(array))
        return [
            dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, is_there, strict=True)
        ]

    def _lists(self, array: pa.Array, feature: Feature) -> list[object]:
        values = iter(self.values(array.flatten(), feature))
        lengths = pc.list_value_length(array).to_pylist()
        return [None if length is None else list(islice(values, length)) for length in lengths]

    def _looked_up(self, array: pa.DictionaryArray, feature: Feature) -> list[object]:
        """Only the entries that these rows use are made: a dictionary may be far larger than a batch."""
        numbers = array.indices.to_pylist()
        used = sorted({number for number in numbers if number is not None})
        entries = self.values(array.dictionary.take(pa.array(used, pa.int64())), feature)
        by_number = dict(zip(used, entries, strict=True))
        return _each(by_number.__getitem__, numbers)

    def _pictures(self, array: pa.Array) -> list[object]:
        if not len(array):
            return []
        kind = array.type
        data = None if pa.types.is_binary_view(kind) else array.buffers()[2]
        start = None if data is None else self.origin.offset_of(data)
        if start is None:
            return _each(lambda raw: Held("", raw), array.to_pylist())
        width = np.int64 if pa.types.is_large_binary(kind) else np.int32
        count = array.offset + len(array) + 1
        ends = np.frombuffer(array.buffers()[1], width, count)[array.offset :].tolist()
        return [
            Held("", path=self.origin.name, offset=start + low, size=high - low) if there else None
            for there, low, high in zip(array.is_valid().to_pylist(), ends[:-1], ends[1:], strict=True)
        ]


def _each(change: Callable[..., object], values: list[object]) -> list[object]:
    return [None if value is None else change(value) for value in values]


def _shortened(moment: str) -> str:
    """A time without zeros at the end of its seconds: Arrow writes as many as its unit has.

    ValueError if Arrow finds that it is none.
    """
    if moment.startswith("<"):
        raise ValueError(moment.strip("<>"))
    return moment.rstrip("0").removesuffix(".") if "." in moment else moment


def _pairs(pairs: list[dict[str, object]]) -> object:
    """A map: an object if its keys are texts, each once; otherwise the list of its pairs."""
    both = [(pair["key"], pair["value"]) for pair in pairs]
    keys = [key for key, _ in both]
    if all(isinstance(key, str) for key in keys) and len(set(map(str, keys))) == len(keys):
        return dict(both)
    return [list(pair) for pair in both]


def _is_binary(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _inner(feature: Feature) -> Feature:
    """The feature of a list's values."""
    if isinstance(feature, Sequence) and not isinstance(feature, str) and len(feature) == 1:
        return feature[0]
    if isinstance(feature, Mapping) and feature.get("_type") in _SEQUENCES:
        return feature.get("feature")
    return None


def _child(feature: Feature, name: str) -> Feature:
    """The feature of a structure's field; a Sequence of structures is stored as a structure of lists."""
    if not isinstance(feature, Mapping):
        return None
    if feature.get("_type") in _SEQUENCES:
        return [_child(feature.get("feature"), name)]
    return feature.get(name)


def _class_names(feature: Feature) -> dict[object, object]:
    """The names of a ClassLabel by their numbers; -1 stands for no label."""
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return {}
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return {}
    return {-1: None, **dict(enumerate(names))}


def features_of(schema: pa.Schema) -> Mapping[str, Feature]:
    """What `datasets` wrote about the columns into a schema's metadata; empty where that is nothing it can have
    written."""
    try:
        written = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = written["info"]["features"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return features if isinstance(features, Mapping) else {}
