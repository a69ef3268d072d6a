"""Reads Thrift's compact protocol, which Parquet describes itself in, from untrusted bytes.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator

BINARY, LIST, STRUCT = 8, 9, 12
"""Types of values. Parquet has no maps."""
INTEGERS = (4, 5, 6)

_TRUE, _FALSE, _SET = 1, 2, 10
_WIDTHS = {3: 1, 7: 8}  # bytes of a byte and of a double
_DEEPEST = 100  # levels of nested structures


class DamagedError(Exception):
    """The bytes are not what the format prescribes."""


class EndError(DamagedError):
    """The bytes end within a value."""

    def __init__(self) -> None:
        super().__init__("is cut off")


class Reader:
    """Reads Thrift's compact protocol from bytes; raises DamagedError for what is none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a structure; the caller reads its value before it asks for the next."""
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self.integer()
            yield number, kind

    def integer(self) -> int:
        """A signed number, in zigzag form."""
        raw = self._unsigned()
        return (raw >> 1) ^ -(raw & 1)

    def integers(self, depth: int = 0) -> dict[int, int]:
        """The integers of a structure by the numbers of their fields; what else it holds is skipped."""
        found = {}
        for field, kind in self.fields():
            if kind in INTEGERS:
                found[field] = self.integer()
            else:
                self.skip(kind, depth + 1)
        return found

    def text(self) -> str:
        """A text; bytes that are no UTF-8 are replaced."""
        length = self._unsigned()
        start = self.position
        self._forward(length)
        return self._data[start : self.position].decode("utf-8", "replace")

    def count(self, kind: int) -> int:
        """How many values of a type a list has; the caller reads them."""
        count, found = self._list_head()
        if count and found != kind:
            raise DamagedError("has a list of a wrong type")
        return count

    def skip(self, kind: int, depth: int = 0, within: bool = False) -> None:
        """Pass over a value; `within` a list or a map a boolean is a byte of its own."""
        if depth > _DEEPEST:
            raise DamagedError("is nested too deep")
        if kind in (_TRUE, _FALSE):
            self._forward(int(within))
        elif kind in INTEGERS:
            self._unsigned()
        elif kind in _WIDTHS:
            self._forward(_WIDTHS[kind])
        elif kind == BINARY:
            self._forward(self._unsigned())
        elif kind in (LIST, _SET):
            count, inner = self._list_head()
            for _ in range(count):
                self.skip(inner, depth + 1, within=True)
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        else:
            raise DamagedError("has a value of an unknown type")

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        count = head >> 4
        if count == 15:
            count = self._unsigned()
        if count > len(self._data):  # an element of a list has at least one byte
            raise EndError
        return count, head & 15

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise DamagedError("has a number of more than 64 bits")

    def _byte(self) -> int:
        try:
            byte = self._data[self.position]
        except IndexError:
            raise EndError from None
        self.position += 1
        return byte

    def _forward(self, count: int) -> None:
        self.position += count
        if self.position > len(self._data):
            raise EndError
