"""The terminal prints plain text only, whatever the source of the text.

Markup and names of emojis are printed literally, control characters are made visible, credentials are hidden. One call
prints one line; a cell of a table is one line too.
"""

from typing import Any

from rich.console import Console
from rich.status import Status as RichStatus
from rich.table import Table as RichTable
from rich.text import Text

from lmmpress.printing.credentials import without_credentials
from lmmpress.printing.visible import visible


def fit(value: Any) -> Any:
    """A text made safe to print; any other value, such as a table, unchanged."""
    return visible(without_credentials(value)) if isinstance(value, str) else value


class Terminal(Console):
    """A console on stdout or stderr that prints untrusted text safely; `options` are those of rich's Console."""

    def __init__(self, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Like rich's `print`, but no text is read as markup."""
        super().print(*map(fit, objects), **options)

    def status(self, status: Any, **options: Any) -> "Status":
        """Like rich's `status`, but the text is not read as markup."""
        return Status(_text(status), console=self, **options)


class Status(RichStatus):
    """A status line that says what is being done now."""

    def update(self, status: Any = None, **options: Any) -> None:
        """Change the text of the status line."""
        super().update(_text(status), **options)


class Table(RichTable):
    """A table that prints untrusted headers and cells safely."""

    def __init__(self, *headers: Any, **options: Any) -> None:
        super().__init__(*map(fit, headers), **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Like rich's `add_row`, but no cell is read as markup."""
        super().add_row(*map(fit, cells), **options)


def _text(value: Any) -> Any:
    """Wrap a str, since rich reads a plain str in a status line as markup."""
    return Text(fit(value)) if isinstance(value, str) else value
