"""What tells a process of this machine from a later one with the same number, and from those of other machines."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from lmmpress.host.pod import this_pod


def machine() -> str:
    """This machine since its last start, or this container: within it, a pid means one process. A pod has its own name,
    which a host name may cut short."""
    parts = [this_pod().name or socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def started(pid: int) -> str:
    """When a process was started, in ticks since the machine's start; empty where it has ended, or is unknown."""
    try:
        # the fields after the name of the program, which is in brackets and may hold any character
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else fields[18]
