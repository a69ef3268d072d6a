"""The terminal: what is printed is text and nothing else, wherever it comes from.

Nothing in it is markup, the name of an emoji, a control character or a credential. One call prints one line; a cell of
a table is one line too.
"""

from typing import Any

from rich.console import Console
from rich.status import Status as RichStatus
from rich.table import Table as RichTable
from rich.text import Text

from lmmpress.printing.credentials import without_credentials
from lmmpress.printing.visible import visible


def fit(words: Any) -> Any:
    """Text fit to be printed; what is no text, such as a table, stays as it is."""
    return visible(without_credentials(words)) if isinstance(words, str) else words


class Terminal(Console):
    """stdout, or stderr, for texts of strangers; `options` are those of rich's Console."""

    def __init__(self, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's, without markup in any text."""
        super().print(*map(fit, objects), **options)

    def status(self, status: Any, **options: Any) -> "Status":
        """As rich's, without markup in any text."""
        return Status(_text(status), console=self, **options)


class Status(RichStatus):
    """What is being done now."""

    def update(self, status: Any = None, **options: Any) -> None:
        """Say what is being done from now on."""
        super().update(_text(status), **options)


class Table(RichTable):
    """A table whose headers and cells are texts of strangers."""

    def __init__(self, *headers: Any, **options: Any) -> None:
        super().__init__(*map(fit, headers), **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """As rich's, without markup in any cell."""
        super().add_row(*map(fit, cells), **options)


def _text(words: Any) -> Any:
    """Rich takes a plain str for markup where it shows what is being done."""
    return Text(fit(words)) if isinstance(words, str) else words
