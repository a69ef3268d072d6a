"""The most memory that a block of code takes: of the process, or of its largest child, and of the GPUs together."""

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """The most memory of a block, in bytes: of the process, or of its largest child, and of the GPUs together.

    `before` is what the process had when the block began. It is None where the system does not let a process begin its
    peak anew: `process` is then the most of its whole life.
    """

    process: int = 0
    gpu: int | None = None
    before: int | None = None

    @property
    def added(self) -> int | None:
        """What the block needed beyond the memory that the process had already; None if that cannot be told."""
        return None if self.before is None else max(0, self.process - self.before)


@contextmanager
def measuring_memory() -> Iterator[Peak]:
    """The most memory that a block takes, to be read after the block."""
    peak, gpus = Peak(), gpu_numbers()
    with suppress(OSError):
        _RESET.write_text("5", "utf-8")  # sets the process' peak back to what it has now
        peak.before = _from_status("VmRSS")
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    before = _of_children()
    yield peak
    children = _of_children()
    peak.process = max(_of_process(), children if children > before else 0)
    if gpus:
        peak.gpu = sum(torch.cuda.max_memory_allocated(gpu) for gpu in gpus)


def gpu_numbers() -> range:
    """The numbers of the GPUs that this process sees."""
    return range(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _of_process() -> int:
    found = _from_status("VmHWM")
    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) if found is None else found


def _from_status(name: str) -> int | None:
    with suppress(OSError):
        if found := re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text("utf-8")):
            return int(found[1]) * 1024
    return None


def _of_children() -> int:
    return _bytes(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def _bytes(most: int) -> int:
    return most if sys.platform == "darwin" else most * 1024
