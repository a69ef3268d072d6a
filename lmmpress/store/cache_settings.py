"""Where this machine's cache is, and how much it may hold."""

import os
from pathlib import Path

from lmmpress.errors import UserError

_DEFAULT_GIGABYTES = 200.0


def cache_folder() -> Path:
    """LMMPRESS_CACHE, or lmmpress in the user's cache folder."""
    if folder := os.environ.get("LMMPRESS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmmpress"


def cache_limit() -> int:
    """The bytes that the cache may hold: LMMPRESS_CACHE_GB, in 10^9 bytes."""
    gigabytes = os.environ.get("LMMPRESS_CACHE_GB", str(_DEFAULT_GIGABYTES))
    try:
        return int(float(gigabytes) * 1e9)
    except (ValueError, OverflowError):
        raise UserError(f"LMMPRESS_CACHE_GB={gigabytes} is not a number of gigabytes") from None
