"""Writes Thrift's compact protocol, for Parquet files that no honest writer would write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = "int | Long | bytes | Sequence[Value] | Mapping[int, Value]"


@dataclass(frozen=True)
class Long:
    """An integer of 64 bits; others have 32."""

    value: int


def encoded(value: object) -> bytes:
    """A structure is a mapping of the numbers of its fields; a list has values of one kind."""
    match value:
        case Mapping():
            fields, last = b"", 0
            for number, inner in sorted(value.items()):
                fields += bytes([(number - last) << 4 | _kind(inner)]) + encoded(inner)
                last = number
            return fields + b"\0"
        case bytes():
            return unsigned(len(value)) + value
        case Sequence():
            kind = _kind(value[0]) if value else 12
            head = (
                bytes([len(value) << 4 | kind]) if len(value) < 15 else bytes([15 << 4 | kind]) + unsigned(len(value))
            )
            return head + b"".join(map(encoded, value))
        case Long():
            return encoded(value.value)
        case int():
            return unsigned(value << 1 if value >= 0 else (-value << 1) - 1)
    raise TypeError(value)


def unsigned(value: int) -> bytes:
    written = b""
    while value > 127:
        written += bytes([value & 127 | 128])
        value >>= 7
    return written + bytes([value])


def parquet(
    schema: Sequence[Mapping[int, object]], groups: Sequence[Mapping[int, object]] = (), body: bytes = b""
) -> bytes:
    """A Parquet file with this schema and these row groups, whose pages are in `body`, which begins at byte 4."""
    footer = encoded({1: 2, 2: schema, 3: Long(0), 4: groups})
    return b"PAR1" + body + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def element(name: bytes, children: int = 0, kind: int | None = None, repetition: int = 1) -> dict[int, object]:
    """An element of a schema: with a kind it is a column, without it a group of columns."""
    described: dict[int, object] = {3: repetition, 4: name}
    return described | ({5: children} if kind is None else {1: kind})


def _kind(value: object) -> int:
    if isinstance(value, Mapping):
        return 12
    if isinstance(value, bytes):
        return 8
    return 9 if isinstance(value, Sequence) else 6 if isinstance(value, Long) else 5
