"""What the system says when it will not do something, as one line for a person."""

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT)
# libraries that write files themselves repeat what the system told them in their own exceptions
_FULL_IN_WORDS = ("No space left on device", "database or disk is full")


def is_full(error: BaseException) -> bool:
    """Whether an error comes of a disk, or of what a user may have of it, being full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(words in str(seen) for words in _FULL_IN_WORDS):
            return True
        seen = seen.__cause__
    return False


def system_says(error: OSError, again: str = "run the command again") -> str:
    """The error and where it came up; of a full disk also what to do: make room, and then `again`."""
    where = f"{error.filename}: " if error.filename else ""
    if is_full(error):
        return f"{where}no space left on the disk; free some and {again}"
    return f"{where}{error.strerror or error}"
