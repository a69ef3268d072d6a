"""Meters of energy: the counters that processors and GPUs keep themselves, where this process may read them.

Processors: RAPL, as Linux shows it in /sys/class/powercap, one counter of microjoules for each package; since 2020
mostly for root alone. GPUs: NVML's total energy of a whole GPU in millijoules, since the driver was loaded. Both count
everything that the chip does, other processes included.
"""

import ctypes
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")  # AMD's have the same name; those of cores and DRAM have a second number
_NVML = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Counter:
    """A counter of microjoules, which begins at 0 again after `most`; None if it never does."""

    read: Callable[[], int]
    most: int | None = None


@dataclass(frozen=True)
class Meter:
    """Counters of one kind that together say what a device takes, and what they are in words."""

    how: str
    counters: tuple[Counter, ...]

    def read(self) -> tuple[int, ...]:
        """Where the counters stand, in microjoules."""
        return tuple(counter.read() for counter in self.counters)

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """The energy between two readings. A counter may have begun anew once."""
        total = 0
        for counter, start, end in zip(self.counters, before, after, strict=True):
            total += end - start if end >= start or counter.most is None else end + counter.most - start
        return total / 1e6


def processor_meter(powercap: Path = POWERCAP) -> Meter | None:
    """The meter of this machine's processors; None if there is none that this process may read."""
    counters = []
    with suppress(OSError, ValueError):
        for folder in sorted(powercap.iterdir()):
            if _PACKAGE.fullmatch(folder.name):
                if not (folder / "name").read_text("utf-8").startswith("package"):
                    continue  # psys, which counts the packages again
                counter = Counter(partial(_number, folder / "energy_uj"), _number(folder / "max_energy_range_uj"))
                counter.read()
                counters.append(counter)
        if counters:
            return Meter(f"RAPL, {len(counters)} processor package{'s' if len(counters) > 1 else ''}", tuple(counters))
    return None


def gpu_meter(uuids: Sequence[str], nvml: Any = None) -> Meter | None:
    """The meter of the GPUs with these UUIDs (GPU-...); None if one of them has none, as a slice of a GPU has none."""
    counters = []
    with suppress(OSError, AttributeError):  # no driver, or one older than the call
        library = nvml or ctypes.CDLL(_NVML)
        if not uuids or library.nvmlInit_v2() != 0:
            return None
        for uuid in uuids:
            handle = ctypes.c_void_p()
            if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0:
                return None
            _microjoules(library, handle)
            counters.append(Counter(partial(_microjoules, library, handle)))
        return Meter(f"NVML, {len(counters)} whole GPU{'s' if len(counters) > 1 else ''}", tuple(counters))
    return None


def _number(file: Path) -> int:
    return int(file.read_text("utf-8"))


def _microjoules(library: Any, handle: ctypes.c_void_p) -> int:
    total = ctypes.c_ulonglong()  # millijoules
    if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total)) != 0:
        raise OSError("NVML counts no energy of this GPU")
    return int(total.value) * 1000
