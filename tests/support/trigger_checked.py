"""What `lmmpress trigger check` finds, for a process that lacks packages."""

from pathlib import Path

from lmmpress.trigger.check import check_file


def checked(settings: str) -> list[tuple[str, str, str]]:
    """Check, status and what is said, for each finding about a file of settings."""
    return [(one.check, one.status, one.said) for one in check_file(Path(settings))]
