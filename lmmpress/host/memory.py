"""How much memory this process can have: the machine's that is free, or less where a container has a limit."""

from contextlib import suppress
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
_FILES = (  # limit, use, and the key in memory.stat of file pages that the system would drop; version 2, version 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def whole_memory(cgroup: Path = CGROUP) -> int:
    """The bytes that this machine has, or the limit of this container: what no process can go beyond."""
    whole: int = psutil.virtual_memory().total
    for limit, *_ in _FILES:
        with suppress(OSError, ValueError):
            whole = min(whole, int((cgroup / limit).read_text("utf-8")))
    return whole


def available_memory(cgroup: Path = CGROUP) -> int:
    """The bytes that this process can still take. A container sees the memory of its whole machine, but gets only what
    its limit leaves."""
    free: int = psutil.virtual_memory().available
    for limit, used, stat, droppable in _FILES:
        with suppress(OSError, ValueError, KeyError):  # no such version, or "max": no limit
            most, now = (int((cgroup / name).read_text("utf-8")) for name in (limit, used))
            stats = dict(line.split() for line in (cgroup / stat).read_text("utf-8").splitlines())
            free = min(free, max(0, most - now + int(stats[droppable])))
    return free
