"""How much energy work takes: by counters where this process may read them, else an estimate that says what it assumes.

An estimate of the processors is the CPU seconds of this process and of those that it has started, times the watts of a
core; one of GPUs is the seconds that pass, times the watts of a GPU. Nothing here raises an error: work that cannot be
measured has no energy.
"""

import math
import resource
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lmmpress.host.energy import POWERCAP, Counter, Meter, gpu_meter, processor_meter

Kind = Literal["measured", "estimated"]

OFTEN = 30.0
"""Seconds between two readings of counters. RAPL's of a busy server begin anew after some minutes."""
_JOULES = 3_600_000  # of a kWh


class Energy(BaseModel):
    """Some energy. It is `measured` if counters tell all of it, else `estimated`; `measured` is the share that they
    tell. `how` says in words what tells it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kwh: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    kind: Kind
    measured: Annotated[float, Field(ge=0, le=1)]
    how: tuple[str, ...]

    def times(self, factor: float) -> "Energy":
        """So many times this energy."""
        return self.model_copy(update={"kwh": self.kwh * factor})

    def on(self, machines: int) -> "Energy":
        """That of so many machines like the one that this is of: estimated, but for the share of that one."""
        how = (*self.how, f"of one of {machines} machines, times {machines}")
        share = {"kwh": self.kwh * machines, "kind": "estimated", "measured": self.measured / machines, "how": how}
        return self.model_copy(update=share)

    @property
    def label(self) -> str:
        """Measured or estimated, in words; of a mixture also how much is measured."""
        return f"estimated, {100 * self.measured:.0f} % of it measured" if 0 < self.measured < 1 else self.kind


def total(energies: Iterable[Energy]) -> Energy | None:
    """All of these together; None if there are none."""
    found = list(energies)
    if not found:
        return None
    kwh = math.fsum(one.kwh for one in found)
    measured = all(one.kind == "measured" for one in found)
    share = math.fsum(one.kwh * one.measured for one in found) / kwh if kwh else float(measured)
    return Energy(
        kwh=kwh,
        kind="measured" if measured else "estimated",
        measured=1.0 if measured else min(share, 1.0),
        how=tuple(dict.fromkeys(line for one in found for line in one.how)),
    )


@dataclass(frozen=True)
class Watts:
    """The power that estimates assume: of a processor's core that works, and of a GPU; None if it is not known."""

    core: float
    gpu: float | None = None


@dataclass(frozen=True)
class Device:
    """What tells the energy of a kind of chip: its counters, and an estimate for where they do not move. One of them
    may be None."""

    counters: Meter | None
    estimate: Meter | None


Reading = tuple[tuple[int, ...] | None, ...]
"""Where the meters of a gauge stand: the counters and the estimate of each device; None for a meter that cannot be
read."""


@dataclass(frozen=True)
class Gauge:
    """The meters of all devices that work runs on."""

    devices: tuple[Device, ...]

    def read(self) -> Reading:
        """Where all meters stand."""
        return tuple(_read(meter) for meter in self._meters)

    def used(self, spans: Sequence[tuple[Reading, Reading]]) -> Energy | None:
        """The energy of some spans of time, each between two readings; None if that of one of the devices is unknown.

        Counters that cannot be read, or have not moved at all, tell nothing: machines in the cloud often have such.
        """
        energies = []
        for number, device in enumerate(self.devices):
            kind: Kind = "measured"
            meter, joules = device.counters, _joules(device.counters, 2 * number, spans)
            if joules is None:
                kind = "estimated"
                meter, joules = device.estimate, _joules(device.estimate, 2 * number + 1, spans)
            if meter is None or joules is None:
                return None
            share = float(kind == "measured")
            energies.append(Energy(kwh=joules / _JOULES, kind=kind, measured=share, how=(meter.how,)))
        return total(energies)

    @property
    def _meters(self) -> list[Meter | None]:
        return [meter for device in self.devices for meter in (device.counters, device.estimate)]


def _read(meter: Meter | None) -> tuple[int, ...] | None:
    with suppress(OSError, ValueError):
        return None if meter is None else meter.read()
    return None


def _joules(meter: Meter | None, at: int, spans: Sequence[tuple[Reading, Reading]]) -> float | None:
    """What the meter at this place of the readings counted in all spans; None if it tells nothing."""
    found = 0.0
    for first, last in spans:
        before, after = first[at], last[at]
        if meter is None or before is None or after is None:
            return None
        found += meter.joules(before, after)
    return found if found > 0 else None


def gauge_of(device: str, gpus: int, watts: Watts, powercap: Path = POWERCAP) -> Gauge | None:
    """The gauge of work on a device of this type: the processors, and where it is `cuda` the first `gpus` GPUs.

    None for other devices, for GPUs that neither a counter nor a stated power tells about, and where the system does
    not answer.
    """
    try:
        processors = Device(processor_meter(powercap), _cores(watts.core))
        if device == "cpu":
            return Gauge((processors,))
        if device != "cuda":
            return None
        found = Device(gpu_meter(gpu_uuids(gpus)), None if watts.gpu is None else _boards(watts.gpu, gpus))
        return Gauge((processors, found)) if found.counters or found.estimate else None
    except (OSError, RuntimeError, ValueError, AttributeError, AssertionError):  # torch's errors are among them
        return None


def gpu_uuids(count: int) -> list[str]:
    """The UUIDs of the first GPUs that torch sees, as NVML writes them."""
    import torch  # takes seconds, and whoever reads results needs none

    return [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(count)]


def _cores(watts: float) -> Meter:
    return Meter(f"{watts:g} W a core, times CPU seconds", (Counter(lambda: round(cpu_seconds() * watts * 1e6)),))


def _boards(watts: float, count: int) -> Meter:
    how = f"{watts:g} W a GPU, times seconds, {count} GPU{'s' if count > 1 else ''}"
    return Meter(how, (Counter(lambda: round(time.monotonic() * watts * count * 1e6)),))


def cpu_seconds() -> float:
    """The CPU seconds of this process so far, and of the processes that it has started and waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return math.fsum(one.ru_utime + one.ru_stime for one in spent)


@dataclass
class Watched:
    """The energy of a block, to be read after it."""

    gauge: Gauge | None
    readings: list[Reading] = field(default_factory=list)

    @property
    def energy(self) -> Energy | None:
        """The energy between the first reading and the last; None if it is unknown."""
        return self.gauge.used(list(pairwise(self.readings))) if self.gauge else None

    def read(self) -> None:
        if self.gauge:
            self.readings.append(self.gauge.read())


@contextmanager
def watching(gauge: Gauge | None, every: float = OFTEN) -> Iterator[Watched]:
    """Watch what a block takes. The meters are also read every few seconds, since counters begin anew."""
    watched, done = Watched(gauge), threading.Event()

    def watch() -> None:
        while not done.wait(every):
            watched.read()

    thread = threading.Thread(target=watch, name="energy", daemon=True)
    watched.read()
    if gauge:
        thread.start()
    try:
        yield watched
    finally:
        done.set()
        if gauge:
            thread.join()
        watched.read()
