"""Describes system errors, such as a full disk, in one line for users."""

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT)
# some libraries raise exceptions of their own with the system's message in the text
_FULL_IN_WORDS = ("No space left on device", "database or disk is full")


def is_full(error: BaseException) -> bool:
    """Whether a full disk or an exceeded disk quota caused an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        if any(words in str(cause) for words in _FULL_IN_WORDS):
            return True
        cause = cause.__cause__
    return False


def system_says(error: OSError, again: str = "run the command again") -> str:
    """Describe an error and name its file. For a full disk also say what to do: free some space, then `again`."""
    where = f"{error.filename}: " if error.filename else ""
    if is_full(error):
        return f"{where}no space left on the disk; free some and {again}"
    return f"{where}{error.strerror or error}"
