"""The exceptions whose messages are written for users."""

import traceback

from lmmpress.printing.credentials import without_credentials
from lmmpress.printing.visible import visible


class UserError(Exception):
    """Says what is wrong, where, and what to do: in one line, or in one line for each of several faults.

    The command line prints the lines and exits with 2. A line may quote text from untrusted files and servers: this
    class makes control characters visible and hides credentials.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = tuple(visible(without_credentials(line)) for line in lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class AwayError(UserError):
    """A server that has answered before gives no answer any more, or another machine has failed: the same work may
    succeed later."""


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, safe to print and to log: cleaned as the lines of a UserError are."""
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    return "\n".join(visible(without_credentials(line)) for line in lines)
