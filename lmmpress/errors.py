"""The one exception a person is meant to read."""

import traceback

from lmmpress.printing.credentials import without_credentials
from lmmpress.printing.visible import visible


class UserError(Exception):
    """What is wrong, where, and what to do about it: one line, or a line for each of several faults.

    The command line prints the lines and exits with 2. What files and servers of others say may stand in a line as it
    is: control characters in it are made visible here, and credentials are left out.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = tuple(visible(without_credentials(line)) for line in lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, fit to be printed and kept in logs, as the lines of UserError are."""
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    return "\n".join(visible(without_credentials(line)) for line in lines)
