"""Lines and tables that show a result to users, on the command line and in a notebook.

Their texts may be untrusted: in HTML they are escaped, with control characters made visible and credentials hidden.
"""

import base64
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from lmmpress.printing.terminal import fit


@dataclass(frozen=True)
class Picture:
    """A small picture in a cell, as the bytes of a PNG file."""

    png: bytes = field(repr=False)


Cell = str | Picture


@dataclass(frozen=True)
class Grid:
    """A table. `strong` are the indices of the highlighted rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    strong: frozenset[int] = frozenset()


Part = str | Grid


class Shown(ABC):
    """A result that a notebook shows as lines and tables."""

    @abstractmethod
    def shown(self) -> tuple[Part, ...]:
        """The lines and tables that the command line prints for this result."""

    def _repr_html_(self) -> str:
        return html(self.shown())


def html(parts: tuple[Part, ...]) -> str:
    """Lines and tables as HTML, without styles and scripts."""
    return str(Markup("\n").join(_table(part) if isinstance(part, Grid) else _line(part) for part in parts))


def _line(text: str) -> Markup:
    return Markup("<p>{}</p>").format(fit(text))


def _table(grid: Grid) -> Markup:
    head = Markup("").join(Markup("<th>{}</th>").format(fit(text)) for text in grid.head)
    rows = Markup("\n").join(
        Markup("<tr>{}</tr>").format(Markup("").join(_cell(cell, number in grid.strong) for cell in row))
        for number, row in enumerate(grid.rows)
    )
    return Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>").format(head, rows)


def _cell(cell: Cell, strong: bool) -> Markup:
    if isinstance(cell, Picture):
        encoded = base64.b64encode(cell.png).decode()
        return Markup('<td><img alt="" src="data:image/png;base64,{}"></td>').format(encoded)
    text = escape(fit(cell))
    return Markup("<td><strong>{}</strong></td>" if strong else "<td>{}</td>").format(text)
