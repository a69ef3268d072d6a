"""What pyarrow finds wrong with files of Parquet and Arrow, and what these may hold, as lines for people.

Needs pyarrow.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from lmmpress.errors import UserError

_MOST_WORDS = 200  # characters of a message of pyarrow's


@contextmanager
def faults_told(place: str, form: str) -> Iterator[None]:
    """Raise UserError where pyarrow cannot read a file of this form."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, struct.error) as error:
        reason = (str(error).splitlines() or [""])[0][:_MOST_WORDS] or type(error).__name__
        raise UserError(f"{place} cannot be read as {form}: {reason}; write it or fetch it again") from None


def check_types(schema: pa.Schema, place: str, overlapping: bool = True) -> None:
    """Raise UserError where two columns have one name, or a column is of a type that JSON has no form for. Without
    `overlapping` also for the types whose values may be the same bytes of a file over and over again."""
    for number, field in enumerate(schema):
        if field.name in schema.names[:number]:
            raise UserError(f"{place}: two columns are named {field.name!r}; rename one")
        if wrong := _without_form(field.type, overlapping):
            raise UserError(f"{place}: column {field.name!r} is of type {wrong}; write it as text, or leave it out")


def check_values(batch: pa.RecordBatch, place: str, first: int) -> None:
    """Raise UserError unless all values of a batch can be read: texts are UTF-8, and no value lies outside of its
    buffer. `first` is the number of its first row in the file `place`."""
    for name, column in zip(batch.schema.names, batch, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise UserError(
                f"{place}, row {first + _first_wrong(column)}: column {name!r} is damaged: {error}"
            ) from None


def _first_wrong(column: pa.Array) -> int:
    """The row of the first value that is not valid; the first row if that cannot be told, as within lists."""
    for number in range(len(column)):
        try:
            column.slice(number, 1).validate(full=True)
        except pa.ArrowInvalid:
            return number
    return 0


def _without_form(kind: pa.DataType, overlapping: bool) -> str:
    """The type in a column's type that `check_types` refuses; empty if there is none."""
    types = pa.types
    if isinstance(kind, pa.ExtensionType):
        return _without_form(kind.storage_type, overlapping)
    if types.is_dictionary(kind):
        return _without_form(kind.value_type, overlapping)
    refused = [
        types.is_union,
        types.is_interval,
        types.is_run_end_encoded,
        types.is_list_view,
        types.is_large_list_view,
    ]
    if not overlapping:
        refused += [types.is_string_view, types.is_binary_view]
    if any(test(kind) for test in refused):
        return str(kind)
    inner = [kind.field(number) for number in range(kind.num_fields)]
    names = [field.name for field in inner]
    if types.is_struct(kind) and len(set(names)) < len(names):
        return f"{kind}, with two fields of one name"
    return next(filter(None, (_without_form(field.type, overlapping) for field in inner)), "")
